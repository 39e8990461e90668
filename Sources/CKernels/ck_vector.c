// Instantiates ck_vector.inc for every instruction set.
#include "ck_simd.h"

#define KERNELS "ck_vector.inc"
#include "ck_sets.inc"
