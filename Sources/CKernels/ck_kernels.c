#include "ck_kernels.h"

#include "ck_cpu.h"

#define SCALAR(name) .name = ck_##name##_scalar,
#define AVX2(name) .name = ck_##name##_avx2,
#define AVX512(name) .name = ck_##name##_avx512,
#define NEON(name) .name = ck_##name##_neon,
#define DOTPROD(name) .name = ck_##name##_dotprod,
#define I8MM(name) .name = ck_##name##_i8mm,

static const ck_kernels tables[CK_SET_COUNT] = {
  [CK_SCALAR] = {CK_EACH_PRODUCT(SCALAR) CK_EACH_OTHER_KERNEL(SCALAR)},
#if defined(__x86_64__)
  [CK_AVX2] = {CK_EACH_PRODUCT(AVX2) CK_EACH_OTHER_KERNEL(AVX2)},
  [CK_AVX512] = {CK_EACH_PRODUCT(AVX512) CK_EACH_OTHER_KERNEL(AVX512)},
#elif defined(__aarch64__)
  [CK_NEON] = {CK_EACH_PRODUCT(NEON) CK_EACH_OTHER_KERNEL(NEON)},
  [CK_DOTPROD] = {CK_EACH_PRODUCT(DOTPROD) CK_EACH_OTHER_KERNEL(NEON)},
  [CK_I8MM] = {CK_EACH_PRODUCT(I8MM) CK_EACH_OTHER_KERNEL(NEON)},
#endif
};

const ck_kernels *ck_kernels_of(ck_set set) { return ck_has_set(set) ? &tables[set] : 0; }
