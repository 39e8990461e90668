// Matrix products, quantisation of activations, interleaving of rows, sums of neurons' columns.
#include <string.h>

#include "twins.h"

const element_type element_types[ELEMENT_TYPES] = {
  {"f32", CK_F32, 1, 4, 0, 0, {-1, -1}},
  {"f16", CK_F16, 2, 4, 0, 0, {-1, -1}},
  {"bf16", CK_BF16, 2, 4, 0, 0, {-1, -1}},
  {"q4_0", CK_Q4_0, 32, 18, 0, 2, {0, -1}},
  {"q4_1", CK_Q4_1, 32, 20, 0, 0, {0, 2}},
  {"q5_0", CK_Q5_0, 32, 22, 0, 2, {0, -1}},
  {"q5_1", CK_Q5_1, 32, 24, 0, 0, {0, 2}},
  {"q8_0", CK_Q8_0, 32, 34, 0, 2, {0, -1}},
  {"q2_K", CK_Q2_K, 256, 84, 0, 0, {80, 82}},
  {"q3_K", CK_Q3_K, 256, 110, 108, 2, {108, -1}},
  {"q4_K", CK_Q4_K, 256, 144, 0, 0, {0, 2}},
  {"q5_K", CK_Q5_K, 256, 176, 0, 0, {0, 2}},
  {"q6_K", CK_Q6_K, 256, 210, 208, 2, {208, -1}},
  {"iq2_xxs", CK_IQ2_XXS, 256, 66, 0, 2, {0, -1}},
  {"iq2_xs", CK_IQ2_XS, 256, 74, 0, 2, {0, -1}},
  {"iq2_s", CK_IQ2_S, 256, 82, 0, 2, {0, -1}},
  {"iq3_xxs", CK_IQ3_XXS, 256, 98, 0, 2, {0, -1}},
  {"iq3_s", CK_IQ3_S, 256, 110, 0, 2, {0, -1}},
  {"iq1_s", CK_IQ1_S, 256, 50, 0, 2, {0, -1}},
  {"iq1_m", CK_IQ1_M, 256, 56, 0, 0, {-1, -1}},
  {"iq4_nl", CK_IQ4_NL, 32, 18, 0, 2, {0, -1}},
  {"iq4_xs", CK_IQ4_XS, 256, 136, 0, 0, {0, -1}},
  {"mxfp4", CK_MXFP4, 32, 17, 0, 1, {-1, -1}},
  {"nvfp4", CK_NVFP4, 64, 36, 0, 0, {-1, -1}},
  {"q1_0", CK_Q1_0, 128, 18, 0, 2, {0, -1}},
  {"q2_0", CK_Q2_0, 64, 18, 0, 2, {0, -1}},
  {"tq1_0", CK_TQ1_0, 256, 54, 52, 2, {52, -1}},
  {"tq2_0", CK_TQ2_0, 256, 66, 64, 2, {64, -1}},
};

const element_type *element_type_of(int id) {
  const element_type *type = element_types;
  while (type->id != id) type++;
  return type;
}

static int is_float(const element_type *type) { return type->elements <= 2; }

// A half of a kind: any bits but those of NaN, or sane scales.
static uint16_t half_value(generator *g, int kind) {
  if (kind >= FINITE_EXTREMES && one_in(g, 4)) {
    const uint16_t bits = (uint16_t)next(g);
    return (bits & 0x7c00) == 0x7c00 && kind != ANY_FLOATS ? bits & 0x83ff : bits;
  }
  const _Float16 scale = (_Float16)(unit(g) * 0.05f + 0.06f);
  uint16_t bits;
  memcpy(&bits, &scale, sizeof bits);
  return bits;
}

// The columns [0, columns) of a row as they lie in a file.
static void fill_row(
    generator *g, int kind, const element_type *type, size_t columns, uint8_t *row) {
  if (type->id == CK_F32) {
    for (size_t i = 0; i < columns; i++) {
      const float x = value(g, kind);
      memcpy(row + 4 * i, &x, 4);
    }
    return;
  }
  if (is_float(type)) {
    for (size_t i = 0; i < columns; i++) {
      const float x = value(g, kind);
      const _Float16 half = (_Float16)x;
      memcpy(row + 2 * i, type->id == CK_F16 ? (const char *)&half : (const char *)&x + 2, 2);
    }
    return;
  }
  for (size_t block = 0; block < columns / type->elements; block++, row += type->bytes) {
    for (size_t i = 0; i < type->bytes; i++) row[i] = (uint8_t)next(g);
    for (int i = 0; i < 2; i++)
      if (type->scales[i] >= 0) {
        const uint16_t scale = half_value(g, kind);
        memcpy(row + type->scales[i], &scale, 2);
      }
  }
}

static size_t row_byte_count(const element_type *type, size_t columns) {
  if (is_float(type)) return columns * (type->id == CK_F32 ? 4 : 2);
  return columns / type->elements * type->bytes;
}

random_matrix make_matrix(
    const ck_kernels *k, generator *g, int kind, const element_type *type, size_t rows,
    size_t columns) {
  random_matrix m = {.row_bytes = row_byte_count(type, columns)};
  const size_t blocks = (columns + type->elements - 1) / type->elements;
  const size_t groups = (rows + 15) / 16;
  m.group_bytes = 16 * blocks * type->bytes;
  for (size_t r = 0; r < rows; r++) {
    uint8_t *row = fenced(m.row_bytes);
    fill_row(g, kind, type, columns, row);
    m.rows[r] = row;
  }
  uint8_t *memory = fenced(groups * m.group_bytes);
  for (size_t i = 0; i < groups; i++) {
    const ck_row_set set = {
        m.rows + 16 * i, rows - 16 * i < 16 ? rows - 16 * i : 16, m.row_bytes, blocks, type->bytes,
        type->lone_offset,
        type->lone_bytes};
    k->interleave_rows(&set, memory + i * m.group_bytes);
  }
  m.matrix = (ck_matrix){memory, groups, m.group_bytes, rows, columns, 0};
  return m;
}

// ---- Products

static void product(
    const ck_kernels *k, generator *g, int kind, const element_type *type, size_t rows,
    size_t columns, size_t tokens) {
  random_matrix m = make_matrix(k, g, kind, type, rows, columns);
  // An activation that is not a number has no int8: docs/decisions/0028.
  if (!is_float(type) && kind == ANY_FLOATS) kind = FINITE_EXTREMES;
  const size_t stride = columns + between(g, 0, 40), out_stride = rows + between(g, 0, 5);
  float *x = fenced(((tokens - 1) * stride + columns) * 4);
  fill_values(g, kind, x, (tokens - 1) * stride + columns);
  const size_t out_count = (tokens - 1) * out_stride + rows;
  float *out = fenced(out_count * 4);
  fill_values(g, ORDINARY, out, out_count);
  ck_activations activations = {x, stride, 0};
  if (!is_float(type)) {
    uint8_t *panels = fenced(ck_panel_tokens(tokens) * columns * 2);
    k->quantise(x, stride, tokens, columns, 0, columns, panels);
    activations.panels = panels;
    m.matrix.accumulates = one_in(g, 3);
  }
  const int result = k->matmul(type->id, &m.matrix, &activations, tokens, out, out_stride);
  emit(&result, sizeof result);
  emit_floats(out, out_count);
}

// Any shape; every sixth has more columns than a slab and enough tokens to be cut.
static void matmul(const ck_kernels *k, generator *g, int kind, int id) {
  const element_type *type = element_type_of(id);
  const size_t rows = between(g, 1, 50), tokens = between(g, 1, 30);
  if (is_float(type)) {
    product(k, g, kind, type, rows, between(g, 1, 67), tokens);
  } else if (one_in(g, 6)) {
    product(k, g, kind, type, between(g, 1, 17), 2048 + 256 * between(g, 1, 2), between(g, 24, 29));
  } else {
    const size_t unit_columns = type->elements;
    const size_t columns = unit_columns * between(g, 1, unit_columns <= 64 ? 9 : 3);
    product(k, g, kind, type, rows, columns, tokens);
  }
}

// Every byte as large as it may be, with either sign: what 16-bit sums of pairs must hold.
static void saturation(const ck_kernels *k, generator *g, int kind, int id) {
  const element_type *type = element_type_of(id);
  static const uint8_t fills[] = {0x00, 0xff, 0x80, 0x7f};
  uint8_t *row = fenced(type->bytes);
  memset(row, fills[kind], type->bytes);
  for (int i = 0; i < 2; i++)
    if (type->scales[i] >= 0) memcpy(row + type->scales[i], "\x00\x3c", 2);  // 1.0
  const uint8_t *rows[16];
  for (int i = 0; i < 16; i++) rows[i] = row;
  uint8_t *group = fenced(16 * type->bytes);
  const ck_row_set set = {rows, 16, type->bytes, 1, type->bytes, type->lone_offset,
        type->lone_bytes};
  k->interleave_rows(&set, group);
  const ck_matrix matrix = {group, 1, 16 * type->bytes, 16, type->elements, 0};
  const size_t tokens = 26, columns = type->elements;
  float *x = fenced(tokens * columns * 4), *out = fenced(tokens * 16 * 4);
  for (size_t i = 0; i < tokens * columns; i++) x[i] = i / columns % 2 ? -127.0f : 127.0f;
  for (size_t i = 0; i < 40; i++) x[next(g) % (tokens * columns)] *= -1;
  uint8_t *panels = fenced(ck_panel_tokens(tokens) * columns * 2);
  k->quantise(x, columns, tokens, columns, 0, columns, panels);
  const ck_activations activations = {x, columns, panels};
  k->matmul(type->id, &matrix, &activations, tokens, out, 16);
  emit_floats(out, tokens * 16);
}

static void unknown_type(const ck_kernels *k, generator *g, int kind, int id) {
  (void)g, (void)kind;
  const ck_matrix matrix = {0};
  const ck_activations activations = {0};
  const ck_neuron_sum sum = {0};
  const int results[] = {
      k->matmul(id, &matrix, &activations, 0, 0, 0), k->accumulate_rows(id, &sum)};
  emit(results, sizeof results);
}

// One token at a time: a panel of one token is the same bytes on every set.
static void quantise(const ck_kernels *k, generator *g, int kind, int argument) {
  (void)argument;
  if (kind == ANY_FLOATS) kind = FINITE_EXTREMES;
  const size_t columns = 32 * between(g, 1, 40);
  float *x = fenced(columns * 4);
  uint8_t *panel = fenced(columns * 2);
  fill_values(g, kind, x, columns);
  // Blocks of zeros, of denormals, of halves of steps.
  for (size_t block = 0; block < columns / 32; block++) {
    const uint64_t choice = next(g) % 8;
    for (size_t i = 0; i < 32 && choice < 3; i++)
      x[32 * block + i] = choice == 0   ? one_in(g, 2) ? -0.0f : 0.0f
                          : choice == 1 ? unit(g) * 0x1p-126f
                                        : ((float)i - 15.5f) * (i == 0 ? 127 / 15.5f : 1);
  }
  // In two parts, of which the first may be empty.
  const size_t middle = 32 * (next(g) % (columns / 32));
  k->quantise(x, columns, 1, columns, middle, columns, panel);
  k->quantise(x, columns, 1, columns, 0, middle, panel);
  emit(panel, columns * 2);
}

// ---- Rows

static void interleave(const ck_kernels *k, generator *g, int kind, int id) {
  (void)kind;
  const element_type *type = element_type_of(id);
  const size_t columns = type->elements * between(g, 1, is_float(type) ? 77 : 5);
  const size_t columns_there = type->elements == 2 ? columns - next(g) % 2 : columns;
  const size_t row_bytes = row_byte_count(type, columns_there), row_count = between(g, 0, 16);
  const uint8_t *rows[16];
  for (int r = 0; r < 16; r++) {
    uint8_t *row = fenced(row_bytes);
    for (size_t i = 0; i < row_bytes; i++) row[i] = (uint8_t)next(g);
    rows[r] = one_in(g, 5) ? 0 : row;
  }
  const size_t blocks = columns / type->elements;
  uint8_t *group = fenced(16 * blocks * type->bytes);
  const ck_row_set set = {rows, row_count, row_bytes, blocks, type->bytes, type->lone_offset,
        type->lone_bytes};
  k->interleave_rows(&set, group);
  emit(group, 16 * blocks * type->bytes);
}

static void accumulate_rows(const ck_kernels *k, generator *g, int kind, int id) {
  const element_type *type = element_type_of(id);
  const size_t columns = is_float(type) ? between(g, 1, 600) : 32 * between(g, 1, 20);
  const size_t row_count = between(g, 1, 40), tokens = between(g, 1, 9);
  const uint8_t *rows[40];
  for (size_t r = 0; r < row_count; r++) {
    uint8_t *row = fenced(row_byte_count(type, columns));
    fill_row(g, kind, type, columns, row);
    rows[r] = row;
  }
  float *values = fenced(tokens * row_count * 4), *out = fenced(tokens * columns * 4);
  for (size_t i = 0; i < tokens * row_count; i++)
    values[i] = one_in(g, 3) ? (one_in(g, 2) ? 0.0f : -0.0f) : 2 * value(g, kind);
  fill_values(g, kind, out, tokens * columns);
  out[0] = -0.0f;
  const size_t first = 32 * between(g, 0, (columns - 1) / 32);
  const size_t end = one_in(g, 2) ? columns : first + (columns - first) / 32 * 32;
  const ck_neuron_sum sum = {rows, row_count, first, end, values, row_count, tokens, out, columns};
  const int result = k->accumulate_rows(id, &sum);
  emit(&result, sizeof result);
  emit_floats(out, tokens * columns);
}

const twin_case product_cases[] = {
  {"matmul f32", matmul, CK_F32, 12},
  {"matmul f16", matmul, CK_F16, 12},
  {"matmul bf16", matmul, CK_BF16, 12},
  {"matmul q4_0", matmul, CK_Q4_0, 24},
  {"matmul q4_1", matmul, CK_Q4_1, 24},
  {"matmul q5_0", matmul, CK_Q5_0, 24},
  {"matmul q5_1", matmul, CK_Q5_1, 24},
  {"matmul q8_0", matmul, CK_Q8_0, 24},
  {"matmul q2_K", matmul, CK_Q2_K, 24},
  {"matmul q3_K", matmul, CK_Q3_K, 24},
  {"matmul q4_K", matmul, CK_Q4_K, 24},
  {"matmul q5_K", matmul, CK_Q5_K, 24},
  {"matmul q6_K", matmul, CK_Q6_K, 24},
  {"matmul iq2_xxs", matmul, CK_IQ2_XXS, 24},
  {"matmul iq2_xs", matmul, CK_IQ2_XS, 24},
  {"matmul iq2_s", matmul, CK_IQ2_S, 24},
  {"matmul iq3_xxs", matmul, CK_IQ3_XXS, 24},
  {"matmul iq3_s", matmul, CK_IQ3_S, 24},
  {"matmul iq1_s", matmul, CK_IQ1_S, 24},
  {"matmul iq1_m", matmul, CK_IQ1_M, 24},
  {"matmul iq4_nl", matmul, CK_IQ4_NL, 24},
  {"matmul iq4_xs", matmul, CK_IQ4_XS, 24},
  {"matmul mxfp4", matmul, CK_MXFP4, 24},
  {"matmul nvfp4", matmul, CK_NVFP4, 24},
  {"matmul q1_0", matmul, CK_Q1_0, 24},
  {"matmul q2_0", matmul, CK_Q2_0, 24},
  {"matmul tq1_0", matmul, CK_TQ1_0, 24},
  {"matmul tq2_0", matmul, CK_TQ2_0, 24},
  {"saturation q4_0", saturation, CK_Q4_0, KINDS},
  {"saturation q4_1", saturation, CK_Q4_1, KINDS},
  {"saturation q5_0", saturation, CK_Q5_0, KINDS},
  {"saturation q5_1", saturation, CK_Q5_1, KINDS},
  {"saturation q8_0", saturation, CK_Q8_0, KINDS},
  {"saturation q2_K", saturation, CK_Q2_K, KINDS},
  {"saturation q3_K", saturation, CK_Q3_K, KINDS},
  {"saturation q4_K", saturation, CK_Q4_K, KINDS},
  {"saturation q5_K", saturation, CK_Q5_K, KINDS},
  {"saturation q6_K", saturation, CK_Q6_K, KINDS},
  {"saturation iq2_xxs", saturation, CK_IQ2_XXS, KINDS},
  {"saturation iq2_xs", saturation, CK_IQ2_XS, KINDS},
  {"saturation iq2_s", saturation, CK_IQ2_S, KINDS},
  {"saturation iq3_xxs", saturation, CK_IQ3_XXS, KINDS},
  {"saturation iq3_s", saturation, CK_IQ3_S, KINDS},
  {"saturation iq1_s", saturation, CK_IQ1_S, KINDS},
  {"saturation iq1_m", saturation, CK_IQ1_M, KINDS},
  {"saturation iq4_nl", saturation, CK_IQ4_NL, KINDS},
  {"saturation iq4_xs", saturation, CK_IQ4_XS, KINDS},
  {"saturation mxfp4", saturation, CK_MXFP4, KINDS},
  {"saturation nvfp4", saturation, CK_NVFP4, KINDS},
  {"saturation q1_0", saturation, CK_Q1_0, KINDS},
  {"saturation q2_0", saturation, CK_Q2_0, KINDS},
  {"saturation tq1_0", saturation, CK_TQ1_0, KINDS},
  {"saturation tq2_0", saturation, CK_TQ2_0, KINDS},
  {"unknown type", unknown_type, 9, 1},
  {"quantise", quantise, 0, 40},
  {"interleave f32", interleave, CK_F32, 16},
  {"interleave f16", interleave, CK_F16, 16},
  {"interleave iq3_xxs", interleave, CK_IQ3_XXS, 16},
  {"interleave iq1_m", interleave, CK_IQ1_M, 16},
  {"interleave iq4_xs", interleave, CK_IQ4_XS, 16},
  {"interleave mxfp4", interleave, CK_MXFP4, 16},
  {"interleave nvfp4", interleave, CK_NVFP4, 16},
  {"interleave q1_0", interleave, CK_Q1_0, 16},
  {"interleave tq1_0", interleave, CK_TQ1_0, 16},
  {"interleave q4_0", interleave, CK_Q4_0, 16},
  {"interleave q4_1", interleave, CK_Q4_1, 16},
  {"interleave q5_0", interleave, CK_Q5_0, 16},
  {"interleave q5_1", interleave, CK_Q5_1, 16},
  {"interleave q8_0", interleave, CK_Q8_0, 16},
  {"interleave q2_K", interleave, CK_Q2_K, 16},
  {"interleave q3_K", interleave, CK_Q3_K, 16},
  {"interleave q4_K", interleave, CK_Q4_K, 16},
  {"interleave q5_K", interleave, CK_Q5_K, 16},
  {"interleave q6_K", interleave, CK_Q6_K, 16},
  {"accumulate_rows f32", accumulate_rows, CK_F32, 24},
  {"accumulate_rows f16", accumulate_rows, CK_F16, 24},
  {"accumulate_rows bf16", accumulate_rows, CK_BF16, 24},
  {"accumulate_rows q8_0", accumulate_rows, CK_Q8_0, 24},
  {"accumulate_rows q4_0", accumulate_rows, CK_Q4_0, 24},
  {0},
};
