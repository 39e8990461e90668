// Instantiates ck_vector.inc for every instruction set; `scalar` is the compiler's baseline target.
#include "CKernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#pragma STDC FP_CONTRACT OFF
// Vectors wider than the target are passed between functions that are always inlined.
#pragma clang diagnostic ignored "-Wpsabi"

typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef int8_t vb __attribute__((vector_size(16)));
typedef _Float16 vh __attribute__((vector_size(32)));

// How many accumulators attention keeps in registers: queries × groups for scores, queries × vectors of a
// head for values.
#define SCORE_QUERIES 4
#define SCORE_GROUPS 1
#define VALUE_QUERIES 2
#define VALUE_WIDTH 2

#define SUFFIX scalar
#define TARGET
#include "ck_vector.inc"
#undef SUFFIX
#undef TARGET

#if defined(__x86_64__)
#define SUFFIX avx2
#define TARGET __attribute__((target("avx2,fma,f16c")))
#include "ck_vector.inc"
#undef SUFFIX
#undef TARGET

#undef SCORE_GROUPS
#undef VALUE_QUERIES
#undef VALUE_WIDTH
#define SCORE_GROUPS 4
#define VALUE_QUERIES 6
#define VALUE_WIDTH 4
#define SUFFIX avx512
#define TARGET \
  __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq"), min_vector_width(512)))
// Packs in a register and stores the whole: a compressing store is microcode on some machines.
static inline __attribute__((always_inline)) TARGET size_t compress_avx512(
    vf x, float threshold, vi lanes, int32_t *indexes) {
  const __mmask16 above =
      _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(threshold), _CMP_GT_OQ);
  _mm512_storeu_si512(indexes, _mm512_maskz_compress_epi32(above, (__m512i)lanes));
  return (size_t)__builtin_popcount(above);
}
#define COMPRESS compress_avx512
#include "ck_vector.inc"
#undef COMPRESS
#undef SUFFIX
#undef TARGET
#elif defined(__aarch64__)
#define SUFFIX neon
#define TARGET
#include "ck_vector.inc"
#undef SUFFIX
#undef TARGET
#endif
