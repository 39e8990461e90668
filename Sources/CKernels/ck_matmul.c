// Instantiates ck_matmul.inc for every instruction set.
#include "ck_simd.h"

// Columns of a slab: those of 12 tokens are 48 KiB of panel, those of a row group 18 KiB of Q4_0.
// Measured beside 512, 1024 and none: docs/decisions/0007.
#define SLAB_COLUMNS 2048

#define PRODUCTS
#define KERNELS "ck_matmul.inc"
#include "ck_sets.inc"
