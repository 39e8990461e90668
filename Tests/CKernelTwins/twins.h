// What the cases of the kernel twins share. A case runs one kernel of a set on data of a seed and emits
// what it wrote; the scalar twin's output must be the same bits.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "CKernels.h"

// ---- Seeded data (SplitMix64)

typedef struct {
  uint64_t state;
} generator;

uint64_t next(generator *g);
size_t between(generator *g, size_t least, size_t most);  // both inclusive
int one_in(generator *g, size_t count);
float unit(generator *g);  // -1...1

// What a case's floats are like; cases take the seed modulo KINDS.
enum { ORDINARY, WITH_OUTLIERS, FINITE_EXTREMES, ANY_FLOATS, KINDS };
// -0, denormals and the largest values among FINITE_EXTREMES; infinities and NaN too among ANY_FLOATS.
float value(generator *g, int kind);
void fill_values(generator *g, int kind, float *x, size_t count);

// ---- Memory

// Memory that ends where no page can be read or written, filled with bytes that differ from set to set:
// what reads too far stops, what depends on memory that nobody wrote differs. Freed after the case.
void *fenced(size_t byte_count);

// ---- Output

void emit(const void *bytes, size_t count);
// As bits; every NaN as the same: which NaN an operation returns is not the same everywhere.
void emit_floats(const float *x, size_t count);
void emit_halves(const uint16_t *x, size_t count);

// ---- Cases

typedef struct {
  const char *name;
  void (*run)(const ck_kernels *k, generator *g, int kind, int argument);
  int argument;
  int seeds;  // how many
} twin_case;

// Ended by a null name.
extern const twin_case product_cases[], vector_cases[], attention_cases[], scan_cases[];

// Element types as kernels see them: docs/format.md, section 5.
typedef struct {
  const char *name;
  int id;             // enum ck_type
  size_t elements;    // of a block
  size_t bytes;       // of a block
  int lone_offset;    // of a block's lone word, and its bytes
  int lone_bytes;
  int scales[2];      // where a block has f16 scales, or negative
} element_type;

#define ELEMENT_TYPES 28
extern const element_type element_types[ELEMENT_TYPES];
const element_type *element_type_of(int id);

typedef struct {
  const uint8_t *rows[64];  // row-major
  size_t row_bytes, group_bytes;
  ck_matrix matrix;
} random_matrix;

// Rows of random quants under scales of the kind, each fenced, and interleaved by the kernel.
random_matrix make_matrix(
    const ck_kernels *k, generator *g, int kind, const element_type *type, size_t rows,
    size_t columns);
