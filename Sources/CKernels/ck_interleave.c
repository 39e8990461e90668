// Instantiates ck_interleave.inc for every instruction set.
#include "ck_simd.h"

// What a missing row is read from: the words of a step and what follows the last whole one.
static const uint8_t zeros[64];

#define KERNELS "ck_interleave.inc"
#include "ck_sets.inc"
