// All kernels of an instruction set, chosen at run time.
#pragma once
#include "ck_attention.h"
#include "ck_interleave.h"
#include "ck_matmul.h"
#include "ck_neuron.h"
#include "ck_scan.h"
#include "ck_sets.h"
#include "ck_vector.h"

// Products and the panels they take, which belong together; and all else.
#define CK_EACH_PRODUCT(X) X(matmul) X(quantise)
#define CK_EACH_OTHER_KERNEL(X)                                                                   \
  X(accumulate_rows) X(interleave_rows) X(add) X(silu_multiply) X(gelu_multiply)                  \
  X(relu_multiply) X(exp) X(scale) X(rms_norm) X(layer_norm) X(relu) X(indexes_above) X(all_finite) \
  X(index_of_highest) X(clamped_swiglu) X(soft_cap) X(sigmoid_multiply) X(scan) X(convolve)        \
  X(rotate_halves) X(rotate_adjacent) X(store_group) X(attention_tile) X(attention_merge)         \
  X(key_range) X(score_estimates) X(quantise_block) X(expand_block)

// A field for each kernel ck_NAME_SUFFIX, of its type.
typedef struct {
#define CK_FIELD(name) __typeof__(ck_##name##_scalar) *_Nonnull name;
  CK_EACH_PRODUCT(CK_FIELD)
  CK_EACH_OTHER_KERNEL(CK_FIELD)
#undef CK_FIELD
} ck_kernels;

// The kernels of a set, or null where this machine does not have it.
const ck_kernels *_Nullable ck_kernels_of(ck_set set);
