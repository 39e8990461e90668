// Instantiates ck_scan.inc for every instruction set.
#include "ck_simd.h"

#define KERNELS "ck_scan.inc"
#include "ck_sets.inc"
