// Attention over tiles, groups and blocks of keys and values, summaries.
#include <string.h>

#include "twins.h"

enum { BLOCK_POSITIONS = 128, TILE_GROUPS = 32 };

// Writes `positions` positions into blocks, slots after the last one of a group as zeros.
static void store(
    const ck_kernels *k, generator *g, int kind, size_t length, size_t positions,
    uint16_t **blocks) {
  float *key = fenced(length * 4), *v = fenced(length * 4);
  for (size_t p = 0; p < (positions + 15) / 16 * 16; p++) {
    if (p < positions) {
      fill_values(g, kind, key, length);
      fill_values(g, kind, v, length);
    } else {
      memset(key, 0, length * 4);
      memset(v, 0, length * 4);
    }
    uint16_t *group = blocks[p / BLOCK_POSITIONS] + p % BLOCK_POSITIONS / 16 * 32 * length;
    k->store_group(key, v, length, p % 16, group);
  }
}

static void store_group(const ck_kernels *k, generator *g, int kind, int argument) {
  (void)argument;
  const size_t length = 16 * between(g, 1, 8);
  uint16_t *group = fenced(64 * length);
  store(k, g, kind, length, 16, &group);
  emit_halves(group, 32 * length);
}

// Some tiles, some of whose groups are not attended over, merged into running partials. Groups lie anywhere.
static void attention(const ck_kernels *k, generator *g, int kind, int merges) {
  const size_t length = 16 * between(g, 1, 8), queries = between(g, 1, 14);
  const size_t tiles = between(g, 1, 3);
  const size_t positions = 512 * (tiles - 1) + between(g, 1, 512);
  const size_t block_count = (positions + BLOCK_POSITIONS - 1) / BLOCK_POSITIONS;
  uint16_t *blocks[12], *groups[12 * BLOCK_POSITIONS / 16];
  for (size_t b = 0; b < block_count; b++) blocks[b] = fenced(BLOCK_POSITIONS * length * 4);
  // Keys that are not finite make scores NaN: another case's matter.
  store(k, g, kind == ANY_FLOATS ? WITH_OUTLIERS : kind, length, positions, blocks);
  const size_t group_count = (positions + 15) / 16;
  for (size_t i = 0; i < group_count; i++) {
    groups[i] = fenced(64 * length);
    memcpy(groups[i], blocks[i / 8] + i % 8 * 32 * length, 64 * length);
  }
  float *query = fenced(queries * length * 4);
  fill_values(g, kind == ANY_FLOATS ? FINITE_EXTREMES : kind % 2, query, queries * length);
  ck_visible *visible = fenced(queries * sizeof *visible);
  for (size_t q = 0; q < queries; q++) {
    const size_t last = between(g, 0, positions - 1);
    visible[q] = (ck_visible){one_in(g, 2) ? 0 : (int32_t)between(g, 0, last), (int32_t)last};
    if (one_in(g, 9)) visible[q] = (ck_visible){5, 4};
  }
  float *partials[2][3];
  for (int i = 0; i < 2; i++) {
    for (int j = 0; j < 3; j++) partials[i][j] = fenced(queries * (j < 2 ? 1 : length) * 4);
    for (size_t q = 0; q < queries; q++) {
      partials[i][0][q] = -__builtin_inff();
      partials[i][1][q] = 0;
      memset(partials[i][2] + q * length, 0, length * 4);
    }
  }
  float *scratch = fenced(queries * (CK_SCORE_STRIDE + 2 + length) * 4);
  const uint16_t *pointers[2][TILE_GROUPS];
  for (size_t t = 0; t < tiles; t++) {
    int misses_block = 0;
    for (size_t i = 0; i < TILE_GROUPS; i++) {
      if (i % 8 == 0) misses_block = one_in(g, 6);
      const size_t group = TILE_GROUPS * t + i, next_group = group + TILE_GROUPS;
      const int misses = one_in(g, 20) || misses_block;
      pointers[0][i] = group < group_count && !misses ? groups[group] : 0;
      pointers[1][i] = next_group < group_count ? groups[next_group] : 0;
    }
    float *const *into = partials[merges && t > 0];
    const ck_attention_tile_arguments a = {
        .groups = pointers[0], .next_groups = one_in(g, 2) ? pointers[1] : 0,
        .first_position = (int32_t)(512 * t), .head_length = length, .queries = query,
        .query_stride = length, .visible = visible, .query_count = queries, .m = into[0],
        .l = into[1], .o = into[2], .scratch = scratch, .soft_cap = one_in(g, 3) ? 5.0f : 0};
    k->attention_tile(&a);
  }
  if (merges)
    k->attention_merge(partials[0][0], partials[0][1], partials[0][2], partials[1][0],
                       partials[1][1], partials[1][2], queries, length);
  for (int j = 0; j < 3; j++) emit_floats(partials[0][j], queries * (j < 2 ? 1 : length));
}

static void summaries(const ck_kernels *k, generator *g, int kind, int argument) {
  (void)argument;
  const size_t length = 16 * between(g, 1, 8);
  uint16_t *block = fenced(BLOCK_POSITIONS * length * 4);
  store(k, g, kind == ANY_FLOATS ? FINITE_EXTREMES : kind, length, BLOCK_POSITIONS, &block);
  uint16_t *ends = fenced(2 * 32 * length);
  memset(ends, 0, 2 * 32 * length);
  for (size_t i = 0; i < 16; i++)
    k->key_range(block + i % 8 * 32 * length, length, ends + i, ends + 16 * length + i);
  emit_halves(ends, 32 * length);
  float *query = fenced(length * 4), *estimates = fenced(64);
  fill_values(g, kind, query, length);
  k->score_estimates(query, length, ends, ends + 16 * length, estimates);
  emit_floats(estimates, 16);
}

// Channels and positions of many sizes and centres, constant ones among them.
static void quantised_block(const ck_kernels *k, generator *g, int kind, int bits) {
  static const float sizes[] = {0, 1e-6f, 1, 30, 60000};
  const size_t length = 16 * between(g, 1, 8);
  uint16_t *block = fenced(BLOCK_POSITIONS * length * 4);
  float *key = fenced(length * 4), *v = fenced(length * 4), *channels = fenced(length * 4);
  for (size_t d = 0; d < length; d++) channels[d] = sizes[next(g) % 5];
  for (size_t p = 0; p < BLOCK_POSITIONS; p++) {
    const float size = sizes[next(g) % 5];
    for (size_t d = 0; d < length; d++) {
      key[d] = (value(g, kind % ANY_FLOATS) + 0.5f) * channels[d];
      v[d] = (value(g, kind % ANY_FLOATS) - 0.5f) * size;
    }
    k->store_group(key, v, length, p % 16, block + p / 16 * 32 * length);
  }
  const size_t bytes = 4 * length + 512 + BLOCK_POSITIONS * length * (size_t)bits / 4;
  uint8_t *codes = fenced(bytes);
  k->quantise_block(block, length, bits, codes);
  emit(codes, bytes);
  uint16_t *expanded = fenced(BLOCK_POSITIONS * length * 4);
  k->expand_block(codes, length, bits, expanded);
  emit_halves(expanded, BLOCK_POSITIONS * length * 2);
}

const twin_case attention_cases[] = {
  {"store_group", store_group, 0, 16},
  {"attention_tile", attention, 0, 40},
  {"attention_merge", attention, 1, 20},
  {"summaries", summaries, 0, 16},
  {"quantised_block 8", quantised_block, 8, 12},
  {"quantised_block 4", quantised_block, 4, 12},
  {0},
};
