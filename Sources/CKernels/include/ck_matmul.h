// Products of quantised or float matrices with activations. Lanes are rows: sixteen rows are
// interleaved in 4-byte words (docs/format.md), a lane accumulates one row, columns go in ascending
// order. Every instruction set computes the same bits.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "ck_sets.h"

// ggml's type numbers, as in TensorBasics.ElementType.
enum ck_type {
  CK_F32 = 0, CK_F16 = 1, CK_Q4_0 = 2, CK_Q4_1 = 3, CK_Q5_0 = 6, CK_Q5_1 = 7, CK_Q8_0 = 8,
  CK_Q2_K = 10, CK_Q3_K = 11, CK_Q4_K = 12, CK_Q5_K = 13, CK_Q6_K = 14, CK_IQ2_XXS = 16,
  CK_IQ2_XS = 17, CK_IQ3_XXS = 18, CK_IQ1_S = 19, CK_IQ4_NL = 20, CK_IQ3_S = 21, CK_IQ2_S = 22,
  CK_IQ4_XS = 23, CK_IQ1_M = 29, CK_BF16 = 30, CK_TQ1_0 = 34, CK_TQ2_0 = 35, CK_MXFP4 = 39,
  CK_NVFP4 = 40, CK_Q1_0 = 41, CK_Q2_0 = 42,
};

// What a kernel needs of 32 int8 activations beside their values, ready to be broadcast.
typedef struct {
  float scale;          // value = scale * q
  float scaled_sum;     // scale * sum
  int16_t sums[2];      // sums of q[0..15] and q[16..31]
  int32_t minus_64_low;   // bias of types with scales of sixteen columns that were expanded
  int32_t minus_64_high;
  int32_t minus_8_sum;  // bias of Q4_0; sum of q[0..31]
  int32_t minus_16_sum;   // bias of Q5_0
  int32_t minus_128_sum;  // bias of Q8_0 taken as unsigned
} ck_block_info;

// Right-hand side. Token t's f32 values begin at values + t * value_stride.
//
// For quantised weights also int8, in panels. Tokens are taken in tiles, as wide as the instruction set
// likes while that many are left; the last may be wider than the tokens left, which zeros follow then. The tile
// that begins with token t has its panel at panels + 2 * t * columns. Per 32 columns a panel of W tokens
// holds eight 4-byte words of each token, in an order of the instruction set's own (ck_dot.inc), then a
// ck_block_info of each token, [W].
typedef struct {
  const float *values;
  size_t value_stride;
  const uint8_t *panels;
} ck_activations;

// Left-hand side: group_count row groups of sixteen rows, group_bytes apart; the last group has
// row_count - 16 * (group_count - 1) rows.
typedef struct {
  const uint8_t *groups;
  size_t group_count;
  size_t group_bytes;
  size_t row_count;
  size_t columns;
  int accumulates;  // sums go on from what is in `out`; quantised types only
} ck_matrix;

// out[t * out_stride + r] for every row r and the first token_count tokens. Returns 0, or -1 for a
// type that is none of ck_type.
#define CK_DECLARE_MATMUL(suffix)                                                                  \
  int ck_matmul_##suffix(                                                                         \
      int type, const ck_matrix *w, const ck_activations *x, size_t token_count, float *out,      \
      size_t out_stride);
CK_EACH_SET(CK_DECLARE_MATMUL)
CK_EACH_PRODUCT_SET(CK_DECLARE_MATMUL)

// Quantises columns [first_column, end_column), multiples of 32, of [tokens, columns] values, rows `stride`
// apart, into panels: scale = max|x| / 127, q = nearest (ties to even) of x / scale. The first token must begin
// a tile; every multiple of CK_TILE_MULTIPLE does, on every instruction set.
#define CK_TILE_MULTIPLE 24
// Tokens that the panels of so many have room for, on every instruction set.
static inline size_t ck_panel_tokens(size_t tokens) {
  return tokens == 1 ? 1 : (tokens + 3) / 4 * 4;
}
#define CK_DECLARE_QUANTISE(suffix)                                                       \
  void ck_quantise_##suffix(                                                              \
      const float *x, size_t stride, size_t tokens, size_t columns, size_t first_column,  \
      size_t end_column, uint8_t *panels);
CK_EACH_SET(CK_DECLARE_QUANTISE)
CK_EACH_PRODUCT_SET(CK_DECLARE_QUANTISE)
