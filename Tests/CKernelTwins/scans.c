// Scans and short convolutions.
#include "twins.h"

enum { NO_DECAY, SCALAR_DECAY, KEY_DECAY };

static float *values(generator *g, int kind, size_t count) {
  float *x = fenced(count * 4);
  fill_values(g, kind, x, count);
  return x;
}

static void scan(const ck_kernels *k, generator *g, int kind, int decay) {
  const size_t keys = between(g, 1, 40), columns = between(g, 1, 150), tokens = between(g, 1, 4);
  const size_t state_count = (columns + 15) / 16 * 16 * keys;
  float *state = values(g, kind, state_count), *v = values(g, kind, columns * tokens);
  const ck_scan_arguments a = {
      .state = state, .queries = values(g, kind, keys * tokens),
      .keys = values(g, kind, keys * tokens), .key_stride = keys, .values = v,
      .value_stride = columns, .decays = decay ? values(g, kind, keys * tokens) : 0,
      .decay_stride = keys, .decays_keys = decay == KEY_DECAY,
      .betas = one_in(g, 2) ? values(g, kind, tokens) : 0, .beta_stride = 1,
      .deletes = one_in(g, 2), .key_count = keys, .column_count = columns, .token_count = tokens};
  k->scan(&a);
  emit_floats(v, columns * tokens);
  emit_floats(state, state_count);
}

static void convolve(const ck_kernels *k, generator *g, int kind, int activates) {
  const size_t taps = between(g, 1, CK_TAP_LIMIT), channels = between(g, 1, 70);
  const size_t tokens = between(g, 1, 10);
  float *x = values(g, kind, channels * tokens);
  float *history = taps > 1 ? values(g, kind, channels * (taps - 1)) : 0;
  const ck_convolution_arguments a = {
      .values = x, .stride = channels, .weights = values(g, kind, channels * taps),
      .bias = one_in(g, 2) ? values(g, kind, channels) : 0, .history = history,
      .history_stride = channels, .tap_count = taps, .channel_count = channels,
      .token_count = tokens, .activates = activates};
  k->convolve(&a);
  emit_floats(x, channels * tokens);
  if (history) emit_floats(history, channels * (taps - 1));
}

const twin_case scan_cases[] = {
  {"scan", scan, NO_DECAY, 40},
  {"scan_scalar_decay", scan, SCALAR_DECAY, 40},
  {"scan_key_decay", scan, KEY_DECAY, 40},
  {"convolve", convolve, 0, 40},
  {"convolve_silu", convolve, 1, 40},
  {0},
};
