// Instantiates ck_matmul.inc for every instruction set; `scalar` is the compiler's baseline target.
#include "CKernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#pragma STDC FP_CONTRACT OFF
// Vectors wider than the target are passed between functions that are always inlined.
#pragma clang diagnostic ignored "-Wpsabi"

typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
typedef uint16_t vs __attribute__((vector_size(32)));
typedef _Float16 vh __attribute__((vector_size(32)));
typedef int8_t vb __attribute__((vector_size(16)));

// Columns of a slab: those of 12 tokens are 48 KiB of panel, those of a row group 18 KiB of Q4_0.
// Measured beside 512, 1024 and none: docs/decisions/0007.
#define SLAB_COLUMNS 2048

#define INLINE_HELPER static inline __attribute__((always_inline))

// The fifth bits of four elements: bits 4c…4c+3 spread to the bytes by one multiplication.
INLINE_HELPER vu fifth_bits(vu v, int c) {
  return ((((v >> (4 * c)) & 15u) * 0x00204081u) & 0x01010101u) << 4;
}
INLINE_HELPER vi dot4(vi sum, vu v, const int8_t *q) {
  sum += (vi)(v & 0xffu) * (int32_t)q[0];
  sum += (vi)((v >> 8) & 0xffu) * (int32_t)q[1];
  sum += (vi)((v >> 16) & 0xffu) * (int32_t)q[2];
  return sum + (vi)(v >> 24) * (int32_t)q[3];
}

// The baseline is for machines without SIMD worth the name, and for tests: small, not unrolled.
#define UNROLL
#define UNROLL_SUBBLOCKS
#define TILE 4
#define TILE16 4
#define FIFTH_BITS fifth_bits
#define DOT4 dot4
#define DOT4_BYTE dot4
#define TARGET
#if defined(__aarch64__)
#define SUFFIX neon
#include "ck_matmul.inc"
#undef SUFFIX
#endif
#define SUFFIX scalar
#include "ck_matmul.inc"
#undef SUFFIX
#undef TARGET
#undef DOT4
#undef DOT4_BYTE

#if defined(__x86_64__)
#undef UNROLL
#define UNROLL _Pragma("clang loop unroll(full)")
#define TARGET __attribute__((target("avx2,fma,f16c")))
// Pairs of products fit 16 bits as long as a byte is at most 63 (or 127): 2 * 127 * 127 < 2^15.
INLINE_HELPER TARGET __m256i dot4_half(__m256i sum, __m256i v, __m256i q) {
  return _mm256_add_epi32(
      sum, _mm256_madd_epi16(_mm256_maddubs_epi16(v, q), _mm256_set1_epi16(1)));
}
INLINE_HELPER TARGET __m256i four_avx2(const int8_t *q) {
  int32_t v;
  __builtin_memcpy(&v, q, sizeof v);
  return _mm256_set1_epi32(v);
}
INLINE_HELPER TARGET vi dot4_avx2(vi sum, vu v, const int8_t *q) {
  __m256i s[2], w[2];
  __builtin_memcpy(s, &sum, sizeof s);
  __builtin_memcpy(w, &v, sizeof w);
  const __m256i a = four_avx2(q);
  s[0] = dot4_half(s[0], w[0], a);
  s[1] = dot4_half(s[1], w[1], a);
  __builtin_memcpy(&sum, s, sizeof s);
  return sum;
}
// Bytes up to 255: the low seven bits, and the eighth shifted into place.
INLINE_HELPER TARGET vi dot4_byte_avx2(vi sum, vu v, const int8_t *q) {
  const vi top = dot4_avx2((vi){0}, (v >> 7) & 0x01010101u, q);
  return dot4_avx2(sum + (top << 7), v & 0x7f7f7f7fu, q);
}
#define DOT4 dot4_avx2
#define DOT4_BYTE dot4_byte_avx2
#define SUFFIX avx2
#include "ck_matmul.inc"
#undef SUFFIX
#undef TARGET
#undef DOT4
#undef DOT4_BYTE
#undef FIFTH_BITS
#undef TILE
#undef TILE16

#undef UNROLL_SUBBLOCKS
#define UNROLL_SUBBLOCKS UNROLL
#define TARGET                                                                                  \
  __attribute__((                                                                               \
      target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi"),         \
      min_vector_width(512)))
INLINE_HELPER TARGET vi dot4_avx512(vi sum, vu v, const int8_t *q) {
  int32_t a;
  __builtin_memcpy(&a, q, sizeof a);
  return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)v, _mm512_set1_epi32(a));
}
// One multishift instead of shift, multiplication and shift: byte i takes bits 4c + i - 4 upwards.
INLINE_HELPER TARGET vu fifth_bits_avx512(vu v, int c) {
  const uint64_t lanes = 0x1f1e1d1c3f3e3d3cull;  // i - 4 and 32 + i - 4, modulo 64
  uint64_t control = 0;
  for (int byte = 0; byte < 8; byte++)
    control |= (((lanes >> (8 * byte)) + 4 * (uint64_t)c) & 63) << (8 * byte);
  return (vu)_mm512_and_si512(
      _mm512_multishift_epi64_epi8(_mm512_set1_epi64((long long)control), (__m512i)v),
      _mm512_set1_epi8(0x10));
}
#define TILE 12
#define TILE16 6
#define FIFTH_BITS fifth_bits_avx512
#define DOT4 dot4_avx512
#define DOT4_BYTE dot4_avx512
#define SUFFIX avx512
#include "ck_matmul.inc"
#endif
