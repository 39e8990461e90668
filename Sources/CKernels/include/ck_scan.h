// Mixers with a state: the linear scan of one head, and short convolutions over positions. Every instruction set
// computes the same bits, however many tokens a call has.
#pragma once
#include <stddef.h>

#include "ck_sets.h"

// Most taps of a short convolution.
enum { CK_TAP_LIMIT = 8, CK_SCAN_LANES = 16 };

// S = decay S, then S += k (beta (v - S' k))', o = S' q, token by token. The state lies by sixteen value columns,
// [columns / 16 rounded up][keys][16], lanes past the last column being what they like.
typedef struct {
  float *_Nonnull state;
  const float *_Nonnull queries, *_Nonnull keys;  // of the first token, [key_count]
  size_t key_stride;                              // floats from one token's to the next's, as queries'
  float *_Nonnull values;                         // of the first token, [column_count]; outputs take their place
  size_t value_stride;
  const float *_Nullable decays;  // of the first token, one or [key_count]; null = nothing decays
  size_t decay_stride;
  int decays_keys;               // a decay for each key
  const float *_Nullable betas;  // of the first token; null = 1
  size_t beta_stride;
  int deletes;  // whether S' k is taken from v
  size_t key_count, column_count, token_count;
} ck_scan_arguments;

// y[t] = bias + sum over taps j of weight[j] x[t - taps + 1 + j], for each channel, and SiLU of it if it activates; in
// place. What comes before the first token is in the history, and there what the next call needs is left.
typedef struct {
  float *_Nonnull values;  // of the first token, [channel_count]
  size_t stride;
  const float *_Nonnull weights;  // [channel_count][tap_count]
  const float *_Nullable bias;    // [channel_count]; null = 0
  float *_Nullable history;       // [tap_count - 1], each [channel_count], the oldest first; null of one tap
  size_t history_stride;
  size_t tap_count, channel_count, token_count;
  int activates;
} ck_convolution_arguments;

#define CK_SCAN_FUNCTIONS(suffix)                            \
  void ck_scan_##suffix(const ck_scan_arguments *_Nonnull a); \
  void ck_convolve_##suffix(const ck_convolution_arguments *_Nonnull a);

CK_EACH_SET(CK_SCAN_FUNCTIONS)
