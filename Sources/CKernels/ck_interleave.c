// Instantiates ck_interleave.inc for every instruction set; `scalar` is the compiler's baseline.
#include "CKernels.h"

// Vectors wider than the target are passed between functions that are always inlined.
#pragma clang diagnostic ignored "-Wpsabi"

typedef uint32_t vu __attribute__((vector_size(64)));
typedef uint32_t vq __attribute__((vector_size(16)));

// What a missing row is read from: the words of a step and what follows the last whole one.
static const uint8_t zeros[64];

#define SUFFIX scalar
#define TARGET
#include "ck_interleave.inc"
#undef SUFFIX
#undef TARGET

#if defined(__x86_64__)
#define SUFFIX avx2
#define TARGET __attribute__((target("avx2,fma,f16c")))
#include "ck_interleave.inc"
#undef SUFFIX
#undef TARGET

#define SUFFIX avx512
#define TARGET \
  __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq"), min_vector_width(512)))
#include "ck_interleave.inc"
#undef SUFFIX
#undef TARGET
#elif defined(__aarch64__)
#define SUFFIX neon
#define TARGET
#include "ck_interleave.inc"
#undef SUFFIX
#undef TARGET
#endif
