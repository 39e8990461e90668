// Elementwise operations, norms, indexes and RoPE.
#include <string.h>

#include "twins.h"

enum { ADD, SILU, GELU, CLAMPED_SWIGLU, RELU_MULTIPLY, EXP, SCALE, SOFT_CAP, RELU, SIGMOID };

static void elementwise(const ck_kernels *k, generator *g, int kind, int operation) {
  const size_t count = between(g, 0, 100);
  float *x = fenced(count * 4), *y = fenced(count * 4);
  fill_values(g, kind, x, count);
  fill_values(g, kind, y, count);
  const float size = (const float[]){0.1f, 5, 80, 1}[next(g) % 4];
  for (size_t i = 0; i < count; i++) x[i] *= size;
  switch (operation) {
    case ADD: k->add(x, y, count); break;
    case SILU: k->silu_multiply(x, y, count); break;
    case GELU: k->gelu_multiply(x, y, count); break;
    case CLAMPED_SWIGLU: k->clamped_swiglu(x, y, count); break;
    case RELU_MULTIPLY: k->relu_multiply(x, y, count); break;
    case EXP: k->exp(x, count); break;
    case SCALE: k->scale(x, value(g, kind), count); break;
    case SOFT_CAP: k->soft_cap(x, 30, count); break;
    case RELU: k->relu(x, count); break;
    case SIGMOID: k->sigmoid_multiply(x, y, count); break;
  }
  emit_floats(x, count);
}

// In place every other time.
static void norm(const ck_kernels *k, generator *g, int kind, int has_bias) {
  const size_t count = between(g, 1, 700);
  float *x = fenced(count * 4), *weight = fenced(count * 4), *bias = fenced(count * 4);
  float *y = one_in(g, 2) ? x : fenced(count * 4);
  fill_values(g, kind, x, count);
  fill_values(g, kind, weight, count);
  fill_values(g, kind, bias, count);
  if (has_bias) k->layer_norm(x, weight, bias, 1e-5f, count, y);
  else k->rms_norm(x, weight, 1e-5f, count, y);
  emit_floats(y, count);
}

static void indexes_above(const ck_kernels *k, generator *g, int kind, int argument) {
  (void)argument;
  const size_t count = between(g, 0, 100);
  float *x = fenced(count * 4);
  int32_t *indexes = fenced(count * 4);
  fill_values(g, kind, x, count);
  const size_t found = k->indexes_above(x, value(g, FINITE_EXTREMES), count, indexes);
  emit(&found, sizeof found);
  emit(indexes, found * 4);
}

static void index_of_highest(const ck_kernels *k, generator *g, int kind, int argument) {
  (void)argument;
  const size_t count = between(g, 0, 1200);
  float *x = fenced(count * 4);
  fill_values(g, kind, x, count);
  const size_t index = k->index_of_highest(x, count);
  emit(&index, sizeof index);
}

static void rotate(const ck_kernels *k, generator *g, int kind, int adjacent) {
  const size_t half = between(g, 1, 70);
  float *x = fenced(2 * half * 4), *cosines = fenced(half * 4), *sines = fenced(half * 4);
  fill_values(g, kind, x, 2 * half);
  fill_values(g, ORDINARY, cosines, half);
  fill_values(g, ORDINARY, sines, half);
  (adjacent ? k->rotate_adjacent : k->rotate_halves)(x, cosines, sines, half);
  emit_floats(x, 2 * half);
}

const twin_case vector_cases[] = {
  {"add", elementwise, ADD, 40},
  {"silu_multiply", elementwise, SILU, 60},
  {"gelu_multiply", elementwise, GELU, 60},
  {"clamped_swiglu", elementwise, CLAMPED_SWIGLU, 60},
  {"relu_multiply", elementwise, RELU_MULTIPLY, 40},
  {"exp", elementwise, EXP, 60},
  {"scale", elementwise, SCALE, 40},
  {"soft_cap", elementwise, SOFT_CAP, 60},
  {"relu", elementwise, RELU, 40},
  {"sigmoid_multiply", elementwise, SIGMOID, 60},
  {"rms_norm", norm, 0, 40},
  {"layer_norm", norm, 1, 40},
  {"indexes_above", indexes_above, 0, 60},
  {"index_of_highest", index_of_highest, 0, 60},
  {"rotate_halves", rotate, 0, 40},
  {"rotate_adjacent", rotate, 1, 40},
  {0},
};
