// How a case is run.
#pragma once
#include "twins.h"

typedef struct {
  uint8_t *bytes;  // to be freed by the caller
  size_t count;
} case_output;

// Frees what fenced() gave.
void release_memory(void);

case_output run_case(const twin_case *c, int seed, ck_set set);

// Runs every counted kernel of a set and prints their names (counts.c).
void run_counted(ck_set set);
