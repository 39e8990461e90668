// The instruction sets that kernels exist for.
#pragma once

typedef enum {
  CK_SCALAR,   // the compiler's baseline: runs everywhere
  CK_AVX2,     // with FMA and F16C
  CK_AVX512,   // F, BW, VL, DQ, VNNI and VBMI
  CK_NEON,     // Arm's Advanced SIMD, which every 64-bit Arm processor has
  CK_DOTPROD,  // NEON with SDOT
  CK_I8MM,     // NEON with SDOT and SMMLA
  CK_SET_COUNT,
} ck_set;

// CK_EACH_SET: suffixes of sets that all kernels are compiled for; CK_EACH_PRODUCT_SET: of those that
// have matrix products of their own, and share the rest with NEON.
#if defined(__x86_64__)
#define CK_EACH_SET(X) X(scalar) X(avx2) X(avx512)
#define CK_EACH_PRODUCT_SET(X)
#elif defined(__aarch64__)
#define CK_EACH_SET(X) X(scalar) X(neon)
#define CK_EACH_PRODUCT_SET(X) X(dotprod) X(i8mm)
#else
#define CK_EACH_SET(X) X(scalar)
#define CK_EACH_PRODUCT_SET(X)
#endif
