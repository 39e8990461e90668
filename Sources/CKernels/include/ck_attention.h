// Attention over tiles of 512 positions in groups of sixteen (docs/decisions/0001), which may lie anywhere.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "ck_sets.h"

// Floats between the scores of two queries: 512 positions, and sixteen more because rows a multiple of
// 2048 bytes apart share few places of a cache.
#define CK_SCORE_STRIDE 528

// Positions a query sees, both inclusive.
typedef struct {
  int32_t first, last;
} ck_visible;

typedef struct {
  // The tile's groups [32]: keys [head_length][16], then values [16][head_length]. A group that is not
  // attended over is null.
  const uint16_t *const *groups;
  // The groups of the tile that is attended over next, to be fetched into the cache meanwhile; it and
  // its elements may be null.
  const uint16_t *const *next_groups;
  int32_t first_position;  // of the tile
  size_t head_length;      // a multiple of 16
  const float *queries;    // [query_count][head_length], scaled
  size_t query_stride;
  const ck_visible *visible;  // [query_count]
  size_t query_count;
  float *m, *l;    // running partials [query_count]
  float *o;        // [query_count][head_length]
  float *scratch;  // query_count * (CK_SCORE_STRIDE + 2 + head_length)
  float soft_cap;  // scores become soft_cap * tanh(score / soft_cap); 0 = they stay
} ck_attention_tile_arguments;

// A quantised block of 128 positions of one KV head: centres, then scales of the keys' channels
// [head_length] f16; centres, then scales of the values' positions [128] f16; codes of the keys
// [8][head_length][16], in groups as f16 keys are; codes of the values [128][head_length]. A code of
// eight bits is a signed byte q and stands for centre + q * scale; one of four bits is q = 0...15 and
// stands for centre + (2 q - 15) * scale. Sixteen codes of four bits are eight bytes: byte i holds code
// i below and code i + 8 above.
typedef struct {
  uint16_t *key_centres, *key_scales, *value_centres, *value_scales;
  uint8_t *keys, *values;
} ck_quantised_block;

static inline ck_quantised_block ck_quantised_block_of(void *bytes, size_t head_length, int bits) {
  uint16_t *halves = (uint16_t *)bytes;
  uint8_t *codes = (uint8_t *)(halves + 2 * head_length + 256);
  return (ck_quantised_block){
      halves, halves + head_length, halves + 2 * head_length, halves + 2 * head_length + 128,
      codes, codes + 16 * (size_t)bits * head_length};
}

#define CK_ATTENTION_FUNCTIONS(suffix)                                                      \
  /* Rounds one position's key and value [head_length] to f16 into its slot of a group. */  \
  void ck_store_group_##suffix(                                                             \
      const float *key, const float *value, size_t head_length, size_t slot, uint16_t *group); \
  /* Merges the tile's partial of each query into the running ones. */                      \
  void ck_attention_tile_##suffix(const ck_attention_tile_arguments *arguments);            \
  /* Merges other partials, of later positions, into the running ones. */                   \
  void ck_attention_merge_##suffix(                                                         \
      float *m, float *l, float *o, const float *other_m, const float *other_l,             \
      const float *other_o, size_t query_count, size_t head_length);                        \
  /* Writes the ends of the keys of a group [head_length][16] into a lane of two summaries  \
     [head_length][16]. */                                                                  \
  void ck_key_range_##suffix(                                                               \
      const uint16_t *group, size_t head_length, uint16_t *lowest, uint16_t *highest);      \
  /* Logarithms of what e^score of a query is on average with the keys of each lane [16]. */ \
  void ck_score_estimates_##suffix(                                                         \
      const float *query, size_t head_length, const uint16_t *lowest, const uint16_t *highest, \
      float *estimates);                                                                    \
  /* Quantises a block of f16 groups to `bits` = 8 or 4. */                                 \
  void ck_quantise_block_##suffix(                                                          \
      const uint16_t *block, size_t head_length, int bits, uint8_t *to);                    \
  /* Expands a quantised block into f16 groups. */                                          \
  void ck_expand_block_##suffix(                                                            \
      const uint8_t *from, size_t head_length, int bits, uint16_t *block);

CK_EACH_SET(CK_ATTENTION_FUNCTIONS)
