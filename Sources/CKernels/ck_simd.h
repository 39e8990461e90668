// What all kernels are written in: vectors of sixteen lanes, which the compiler cuts into what the
// target has. Included before ck_sets.inc.
#pragma once
#include "CKernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
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
typedef uint32_t vq __attribute__((vector_size(16)));
typedef float vf4 __attribute__((vector_size(16)));
typedef _Float16 vh4 __attribute__((vector_size(8)));

// A function of the instruction set that is being compiled: ck_add of NEON is NAME(ck_add).
#define NAME_(base, suffix) base##_##suffix
#define NAME__(base, suffix) NAME_(base, suffix)
#define NAME(base) NAME__(base, SUFFIX)
#define INLINE static inline __attribute__((always_inline)) TARGET
