// Instantiates ck_neuron.inc for every instruction set; `scalar` is the compiler's baseline target.
#include "CKernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#pragma STDC FP_CONTRACT OFF
// Vectors wider than the target are passed between functions that are always inlined.
#pragma clang diagnostic ignored "-Wpsabi"

typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint16_t vs __attribute__((vector_size(32)));
typedef _Float16 vh __attribute__((vector_size(32)));
typedef uint32_t vq __attribute__((vector_size(16)));
typedef _Float16 vh4 __attribute__((vector_size(8)));
typedef float vf4 __attribute__((vector_size(16)));
typedef int8_t vb __attribute__((vector_size(16)));

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

#define UNROLL _Pragma("clang loop unroll(full)")

#define NIBBLES(v) __builtin_convertvector(((v) & 15) - 8, vf)
#define SUFFIX scalar
#define TARGET
#define WIDTH 4
#define TILE_WIDTH 2
#include "ck_neuron.inc"
#undef SUFFIX
#undef TARGET

#if defined(__x86_64__)
#define SUFFIX avx2
#define TARGET __attribute__((target("avx2,fma,f16c")))
#include "ck_neuron.inc"
#undef SUFFIX
#undef TARGET
#undef WIDTH
#undef TILE_WIDTH
#undef NIBBLES

#define SUFFIX avx512
#define TARGET \
  __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq"), min_vector_width(512)))
// A table look-up, which takes no notice of the higher bits.
static inline __attribute__((always_inline)) TARGET vf nibbles_avx512(vi v) {
  const vf table = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
  return (vf)_mm512_permutexvar_ps((__m512i)v, (__m512)table);
}
#define NIBBLES nibbles_avx512
#define WIDTH 8
#define TILE_WIDTH 4
#include "ck_neuron.inc"
#undef SUFFIX
#undef TARGET
#elif defined(__aarch64__)
#define SUFFIX neon
#define TARGET
#include "ck_neuron.inc"
#undef SUFFIX
#undef TARGET
#endif
