// Kernels whose instructions are counted, on fixed data. Each runs once before, so that nothing is bound
// or faulted in while it is counted: `callgrind` counts what counted_NAME includes, qemu's plugin what
// lies between two calls of count_marker.
#include <stdio.h>
#include <string.h>

#include "run.h"

#define NOINLINE __attribute__((noinline))

enum { ROWS = 64, COLUMNS = 1024, HEAD = 64, BLOCK = 128 };

static struct {
  const ck_kernels *k;
  random_matrix m;
  ck_activations x;
  size_t tokens;
  int type;
  float *values, *out, *weight;
  uint8_t *panels, *codes, *group;
  ck_row_set rows;
  ck_neuron_sum sum;
  ck_attention_tile_arguments tile;
  uint16_t *block;
} data;

static float *floats(generator *g, size_t count) {
  float *x = fenced(count * 4);
  fill_values(g, ORDINARY, x, count);
  return x;
}

static void prepare_product(generator *g, int type, size_t tokens) {
  data.type = type;
  data.tokens = tokens;
  data.m = make_matrix(data.k, g, ORDINARY, element_type_of(type), ROWS, COLUMNS);
  data.values = floats(g, tokens * COLUMNS);
  data.panels = fenced(ck_panel_tokens(tokens) * COLUMNS * 2);
  data.k->quantise(data.values, COLUMNS, tokens, COLUMNS, 0, COLUMNS, data.panels);
  data.x = (ck_activations){data.values, COLUMNS, data.panels};
  data.out = fenced(tokens * ROWS * 4);
}
static void run_product(void) {
  data.k->matmul(data.type, &data.m.matrix, &data.x, data.tokens, data.out, ROWS);
}
static void run_quantise(void) {
  data.k->quantise(data.values, COLUMNS, data.tokens, COLUMNS, 0, COLUMNS, data.panels);
}

static void prepare_vectors(generator *g) {
  data.values = floats(g, COLUMNS);
  data.weight = floats(g, COLUMNS);
  data.out = fenced(COLUMNS * 4);
}
static void run_rms_norm(void) {
  data.k->rms_norm(data.values, data.weight, 1e-5f, COLUMNS, data.out);
}
static void run_silu_multiply(void) { data.k->silu_multiply(data.values, data.weight, COLUMNS); }

static void prepare_accumulate(generator *g) {
  prepare_product(g, CK_Q4_0, 1);
  data.out = floats(g, COLUMNS);
  data.sum = (ck_neuron_sum){data.m.rows,  ROWS, 0, COLUMNS, data.values, ROWS, 1,
                             data.out, COLUMNS};
}
static void run_accumulate(void) { data.k->accumulate_rows(CK_Q4_0, &data.sum); }

static void prepare_interleave(generator *g) {
  prepare_product(g, CK_Q4_0, 1);
  data.group = fenced(data.m.group_bytes);
  data.rows = (ck_row_set){data.m.rows, 16, data.m.row_bytes, COLUMNS / 32, 18, 0, 2};
}
static void run_interleave(void) { data.k->interleave_rows(&data.rows, data.group); }

// Four queries over a whole tile, the same eight groups four times.
static void prepare_attention(generator *g) {
  static const uint16_t *groups[32];
  static ck_visible visible[4];
  data.block = fenced(BLOCK * HEAD * 4);
  for (size_t p = 0; p < BLOCK; p++) {
    const float *key = floats(g, HEAD), *v = floats(g, HEAD);
    data.k->store_group(key, v, HEAD, p % 16, data.block + p / 16 * 32 * HEAD);
  }
  float *partials = floats(g, 4 * (2 + HEAD));
  for (int i = 0; i < 4; i++) {
    visible[i] = (ck_visible){0, 511};
    partials[i] = 0;
  }
  for (int i = 0; i < 32; i++) groups[i] = data.block + i % 8 * 32 * HEAD;
  data.tile = (ck_attention_tile_arguments){
      .groups = groups, .head_length = HEAD, .queries = floats(g, 4 * HEAD), .query_stride = HEAD,
      .visible = visible, .query_count = 4, .m = partials, .l = partials + 4, .o = partials + 8,
      .scratch = floats(g, 4 * (CK_SCORE_STRIDE + 2 + HEAD))};
  data.codes = fenced(4 * HEAD + 512 + BLOCK * HEAD * 2);
  data.k->quantise_block(data.block, HEAD, 8, data.codes);
}
static void run_attention(void) { data.k->attention_tile(&data.tile); }
static void run_expand(void) { data.k->expand_block(data.codes, HEAD, 8, data.block); }

#define EACH_COUNTED(X)                                                                           \
  X(matvec_q4_0, prepare_product(g, CK_Q4_0, 1), run_product())                                   \
  X(matmul_q4_0, prepare_product(g, CK_Q4_0, 24), run_product())                                  \
  X(matvec_q4_K, prepare_product(g, CK_Q4_K, 1), run_product())                                   \
  X(few_q4_K, prepare_product(g, CK_Q4_K, 8), run_product())                                      \
  X(matmul_q4_K, prepare_product(g, CK_Q4_K, 24), run_product())                                  \
  X(matvec_q6_K, prepare_product(g, CK_Q6_K, 1), run_product())                                   \
  X(matmul_q6_K, prepare_product(g, CK_Q6_K, 24), run_product())                                  \
  X(matvec_q8_0, prepare_product(g, CK_Q8_0, 1), run_product())                                   \
  X(matmul_q8_0, prepare_product(g, CK_Q8_0, 24), run_product())                                  \
  X(matvec_f16, prepare_product(g, CK_F16, 1), run_product())                                     \
  X(quantise, prepare_product(g, CK_Q4_0, 24), run_quantise())                                    \
  X(rms_norm, prepare_vectors(g), run_rms_norm())                                                 \
  X(silu_multiply, prepare_vectors(g), run_silu_multiply())                                       \
  X(accumulate_rows_q4_0, prepare_accumulate(g), run_accumulate())                                \
  X(interleave_q4_0, prepare_interleave(g), run_interleave())                                     \
  X(attention_tile, prepare_attention(g), run_attention())                                        \
  X(expand_block_8, prepare_attention(g), run_expand())

#define DEFINE(name, prepare, run)                                 \
  static void prepare_##name(generator *g) { prepare; }            \
  NOINLINE void counted_##name(void);                              \
  NOINLINE void counted_##name(void) { run; }
EACH_COUNTED(DEFINE)

NOINLINE void count_marker(void);
NOINLINE void count_marker(void) { __asm__ volatile(""); }

void run_counted(ck_set set) {
  data.k = ck_kernels_of(set);
  generator g = {42};
#define RUN(name, prepare, run) \
  prepare_##name(&g);           \
  counted_##name();             \
  count_marker();               \
  counted_##name();             \
  count_marker();               \
  release_memory();             \
  puts(#name);
  EACH_COUNTED(RUN)
}
