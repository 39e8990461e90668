// Instantiates ck_neuron.inc for every instruction set.
#include "ck_simd.h"

// Rows that are summed in one go over the columns: streams that a core's prefetchers can follow, and
// enough to make up for loading and storing the sums.
#define ROWS 8
// Bytes ahead in a row that are prefetched.
#define AHEAD 1024
// Tokens of a tile.
#define TILE 4

// Up to ROWS rows that have a value other than 0.
typedef struct {
  size_t count;
  const uint8_t *rows[ROWS];
  size_t indexes[ROWS];
} row_batch;

// The next rows from *row on with a value other than 0 for any token.
static void next_batch(const ck_neuron_sum *sum, size_t *row, row_batch *batch) {
  batch->count = 0;
  for (; *row < sum->row_count && batch->count < ROWS; ++*row)
    for (size_t t = 0; t < sum->token_count; t++)
      if (sum->values[t * sum->value_stride + *row] != 0) {
        batch->rows[batch->count] = sum->rows[*row];
        batch->indexes[batch->count++] = *row;
        break;
      }
}

#define KERNELS "ck_neuron.inc"
#include "ck_sets.inc"
