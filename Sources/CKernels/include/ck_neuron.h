// Sums of row-major rows, each multiplied by a value of each token. Every instruction set computes
// the same bits.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "ck_sets.h"

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
#define CK_DECLARE_ACCUMULATE_ROWS(suffix) \
  int ck_accumulate_rows_##suffix(int type, const ck_neuron_sum *sum);
CK_EACH_SET(CK_DECLARE_ACCUMULATE_ROWS)
