#include "ck_cpu.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#if defined(__x86_64__)
int ck_has_set(ck_set set) {
  switch (set) {
    case CK_SCALAR: return 1;
    case CK_AVX2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("f16c");
    case CK_AVX512:
      return ck_has_set(CK_AVX2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") &&
             __builtin_cpu_supports("avx512vbmi");
    default: return 0;
  }
}
#elif defined(__aarch64__)
int ck_has_set(ck_set set) {
  // The kernel's numbers, which older headers do not have: HWCAP_ASIMDDP, HWCAP2_I8MM.
  const int has_dot = getauxval(AT_HWCAP) >> 20 & 1;
  const int has_i8mm = getauxval(AT_HWCAP2) >> 13 & 1;
  switch (set) {
    case CK_SCALAR:
    case CK_NEON: return 1;
    case CK_DOTPROD: return has_dot;
    case CK_I8MM: return has_dot && has_i8mm;
    default: return 0;
  }
}
#else
int ck_has_set(ck_set set) { return set == CK_SCALAR; }
#endif
