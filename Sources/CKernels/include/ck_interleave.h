// Row-major rows into row groups (docs/format.md, section 5): words are moved, never changed.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "ck_sets.h"

typedef struct {
  const uint8_t *const *rows;  // [row_count], at any alignment; NULL = a row of zeros
  size_t row_count;            // at most 16; rows that are missing are zero
  size_t row_bytes;            // that a row has; what its blocks have more is zero
  size_t blocks;
  size_t block_bytes;
  int half_offset;  // of a block's lone 2-byte word, or negative
} ck_row_set;

// Per block first the rows' 2-byte words at half_offset (where it is not negative), then each 4-byte
// word of the sixteen rows. `group` has 16 * blocks * block_bytes bytes.
#define CK_DECLARE_INTERLEAVE_ROWS(suffix) \
  void ck_interleave_rows_##suffix(const ck_row_set *set, uint8_t *group);
CK_EACH_SET(CK_DECLARE_INTERLEAVE_ROWS)
