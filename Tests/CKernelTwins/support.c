#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "run.h"

// ---- Seeded data

uint64_t next(generator *g) {
  uint64_t z = g->state += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}
size_t between(generator *g, size_t least, size_t most) {
  return least + next(g) % (most - least + 1);
}
int one_in(generator *g, size_t count) { return next(g) % count == 0; }
float unit(generator *g) { return (float)((int64_t)(next(g) >> 39) - (1 << 24)) * 0x1p-24f; }

float value(generator *g, int kind) {
  static const float extremes[] = {
      0.0f, -0.0f, 0x1p-149f, -0x1p-149f, 0x1.fffffcp-127f, -0x1p-126f, 0x1p-120f, -0x1.8p-24f,
      65504.0f, -65520.0f, 1e20f, -1e20f, 0x1.fffffep127f, -0x1.fffffep127f, 88.73f, -104.0f,
      0x1p-14f, -0x1p-25f};
  static const float others[] = {__builtin_inff(), -__builtin_inff(), __builtin_nanf("")};
  const float x = unit(g);
  if (kind == ANY_FLOATS && one_in(g, 40)) return others[next(g) % 3];
  if (kind >= FINITE_EXTREMES && one_in(g, 8))
    return extremes[next(g) % (sizeof extremes / sizeof *extremes)];
  if (kind == WITH_OUTLIERS && one_in(g, 97)) return x * 50;
  return x;
}
void fill_values(generator *g, int kind, float *x, size_t count) {
  for (size_t i = 0; i < count; i++) x[i] = value(g, kind);
}

// ---- Memory

typedef struct {
  uint8_t *base;
  size_t bytes;
} mapping;
static mapping mappings[1024];
static size_t mapping_count;
static uint8_t filler;

void *fenced(size_t byte_count) {
  const size_t page = 4096, whole = (byte_count + page - 1) / page * page;
  if (mapping_count == sizeof mappings / sizeof *mappings) abort();
  uint8_t *base =
      mmap(0, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED || mprotect(base + whole, page, PROT_NONE) != 0) {
    perror("mmap");
    exit(1);
  }
  mappings[mapping_count++] = (mapping){base, whole + page};
  uint8_t *memory = base + whole - byte_count;
  memset(memory, filler, byte_count);
  return memory;
}

void release_memory(void) {
  while (mapping_count > 0) {
    mapping_count--;
    munmap(mappings[mapping_count].base, mappings[mapping_count].bytes);
  }
}

// ---- Output

static uint8_t *emitted;
static size_t emitted_count, emitted_capacity;

void emit(const void *bytes, size_t count) {
  if (emitted_count + count > emitted_capacity) {
    emitted_capacity = 2 * (emitted_count + count);
    emitted = realloc(emitted, emitted_capacity);
    if (!emitted) abort();
  }
  memcpy(emitted + emitted_count, bytes, count);
  emitted_count += count;
}
void emit_floats(const float *x, size_t count) {
  for (size_t i = 0; i < count; i++) {
    uint32_t bits;
    memcpy(&bits, x + i, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) bits = 0x7fc00000;
    emit(&bits, sizeof bits);
  }
}
void emit_halves(const uint16_t *x, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const uint16_t bits = (x[i] & 0x7fff) > 0x7c00 ? 0x7e00 : x[i];
    emit(&bits, sizeof bits);
  }
}

case_output run_case(const twin_case *c, int seed, ck_set set) {
  generator g = {(uint64_t)seed * 1000003 + 17};
  filler = (uint8_t)(0xA1 + 0x11 * set);
  emitted_count = 0;
  c->run(ck_kernels_of(set), &g, seed % KINDS, c->argument);
  release_memory();
  case_output output = {malloc(emitted_count + 1), emitted_count};
  if (!output.bytes) abort();
  memcpy(output.bytes, emitted, emitted_count);
  return output;
}
