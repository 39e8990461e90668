// Instantiates ck_matmul.inc for every instruction set.
#include "ck_simd.h"

// Columns of a slab, about: those of 12 tokens are 48 KiB of panel, those of a row group 18 KiB of Q4_0.
// Measured beside 512, 1024 and none: docs/decisions/0007.
#define SLAB_COLUMNS 2048

// How far ahead a single token's weights are asked for, by type, where that was measured to be faster than to
// leave it to the processor (docs/decisions/0038): NEAR is 4 KiB ahead, into the first-level cache; FAR is 10 KiB,
// into the second-level cache, and 1.5 KiB from there into the first. Tiles of tokens ask for all types' 10 KiB
// ahead (docs/decisions/0007), but for what has been expanded: that is CACHED.
enum { AHEAD_NONE, AHEAD_NEAR, AHEAD_FAR, AHEAD_CACHED };
enum {
  ahead_q4_0 = AHEAD_NONE, ahead_q4_1 = AHEAD_NONE, ahead_q5_0 = AHEAD_NONE, ahead_q5_1 = AHEAD_NONE,
  ahead_q8_0 = AHEAD_NONE, ahead_iq4_nl = AHEAD_NONE, ahead_mxfp4 = AHEAD_NONE, ahead_q2_0 = AHEAD_NONE,
  ahead_q1_0 = AHEAD_NONE,
  ahead_q4_K = AHEAD_NEAR, ahead_tq1_0 = AHEAD_NEAR, ahead_iq2_xxs = AHEAD_NEAR, ahead_iq2_xs = AHEAD_NEAR,
  ahead_iq2_s = AHEAD_NEAR, ahead_iq3_xxs = AHEAD_NEAR, ahead_iq3_s = AHEAD_NEAR, ahead_iq1_s = AHEAD_NEAR,
  ahead_iq1_m = AHEAD_NEAR, ahead_iq4_xs = AHEAD_NEAR, ahead_tq2_0 = AHEAD_NEAR,
  ahead_q2_K = AHEAD_FAR, ahead_q3_K = AHEAD_FAR, ahead_q5_K = AHEAD_FAR, ahead_q6_K = AHEAD_FAR,
  ahead_nvfp4 = AHEAD_FAR,
  ahead_expanded32 = AHEAD_CACHED, ahead_expanded16 = AHEAD_CACHED, ahead_expanded_odd = AHEAD_CACHED,
  ahead_expanded_halves = AHEAD_CACHED, ahead_expanded_minima = AHEAD_CACHED,
};

#define PRODUCTS
#define KERNELS "ck_matmul.inc"
#include "ck_sets.inc"
