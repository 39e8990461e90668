// Sums of row-major rows, each multiplied by a value of each token. Every instruction set computes
// the same bits.
#pragma once
#include <stddef.h>
#include <stdint.h>

// out[t * out_stride + c] += values[t * value_stride + i] * row i [c], for the columns c from
// first_column to end_column; i ascends, one fused multiply-add a term. A value of 0 adds nothing,
// whatever the row holds. first_column is a multiple of 32; end_column may be none for float types.
typedef struct {
  const uint8_t *const *rows;  // [row_count], at any alignment
  size_t row_count;
  size_t first_column, end_column;
  const float *values;
  size_t value_stride;
  size_t token_count;
  float *out;
  size_t out_stride;
} ck_neuron_sum;

// Returns 0, or -1 for a type other than F32, F16, BF16, Q8_0 and Q4_0 (ck_type).
typedef int ck_accumulate_rows_function(int type, const ck_neuron_sum *sum);
ck_accumulate_rows_function ck_accumulate_rows_scalar;
#if defined(__x86_64__)
ck_accumulate_rows_function ck_accumulate_rows_avx2;
ck_accumulate_rows_function ck_accumulate_rows_avx512;
#elif defined(__aarch64__)
ck_accumulate_rows_function ck_accumulate_rows_neon;
#endif
