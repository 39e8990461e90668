// Elementwise operations, norms and RoPE on f32. Every instruction set computes the same bits.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "ck_sets.h"

#define CK_VECTOR_FUNCTIONS(suffix)                                                                 \
  void ck_add_##suffix(float *x, const float *y, size_t count);           /* x += y */              \
  void ck_silu_multiply_##suffix(float *x, const float *y, size_t count); /* x = silu(x) y */       \
  void ck_gelu_multiply_##suffix(float *x, const float *y, size_t count); /* x = gelu(x) y, tanh */ \
  void ck_soft_cap_##suffix(float *x, float cap, size_t count); /* x = cap tanh(x / cap) */         \
  void ck_clamped_swiglu_##suffix(float *x, const float *y, size_t count); /* gpt-oss's */          \
  void ck_sigmoid_multiply_##suffix(float *x, const float *y, size_t count); /* x = x sigmoid(y) */  \
  void ck_relu_multiply_##suffix(float *x, const float *y, size_t count); /* x = max(x, 0) y */     \
  void ck_exp_##suffix(float *x, size_t count);                           /* x = e^x */             \
  void ck_scale_##suffix(float *x, float factor, size_t count);                                     \
  /* y = x / sqrt(mean(x^2) + epsilon) * weight; y may be x. 0 if the mean is not finite: x is    \
     not, or overflows. */                                                                          \
  int ck_rms_norm_##suffix(                                                                        \
      const float *x, const float *weight, float epsilon, size_t count, float *y);                  \
  /* y = (x - mean) / sqrt(mean((x - mean)^2) + epsilon) * weight + bias; y may be x. 0 as above. */ \
  int ck_layer_norm_##suffix(                                                                      \
      const float *x, const float *weight, const float *bias, float epsilon, size_t count,          \
      float *y);                                                                                    \
  void ck_relu_##suffix(float *x, size_t count); /* x = max(x, 0), but NaN and -inf where x is */    \
  int ck_all_finite_##suffix(const float *x, size_t count); /* no infinity, no NaN */               \
  /* Ascending i with x[i] > threshold, and their count; `indexes` has room for `count`. */         \
  size_t ck_indexes_above_##suffix(                                                                 \
      const float *x, float threshold, size_t count, int32_t *indexes);                             \
  /* The lowest i with the highest x[i], NaN being as low as -inf; 0 where all are that low. */       \
  size_t ck_index_of_highest_##suffix(const float *x, size_t count);                                \
  /* RoPE on one head of 2 * half elements */                                                       \
  void ck_rotate_halves_##suffix(                                                                   \
      float *x, const float *cosines, const float *sines, size_t half);                             \
  void ck_rotate_adjacent_##suffix(                                                                 \
      float *x, const float *cosines, const float *sines, size_t half);

CK_EACH_SET(CK_VECTOR_FUNCTIONS)
