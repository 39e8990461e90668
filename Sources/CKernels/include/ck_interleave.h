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
  int lone_offset;  // of a block's lone word of lone_bytes, which its first or its last bytes are
  int lone_bytes;   // 0, 1 or 2
} ck_row_set;

// Per block first the rows' lone words, where there are some, then each 4-byte word of the sixteen rows. `group` has 16 * blocks * block_bytes bytes.
#define CK_DECLARE_INTERLEAVE_ROWS(suffix) \
  void ck_interleave_rows_##suffix(const ck_row_set *set, uint8_t *group);
CK_EACH_SET(CK_DECLARE_INTERLEAVE_ROWS)
