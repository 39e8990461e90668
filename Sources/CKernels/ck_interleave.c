#include <string.h>

#include "CKernels.h"

void ck_interleave(
    const uint8_t *rows, size_t row_bytes, size_t blocks, size_t block_bytes, int half_offset,
    uint8_t *group) {
  const size_t words = block_bytes / 4;
  for (size_t block = 0; block < blocks; block++) {
    const uint8_t *from = rows + block * block_bytes;
    if (half_offset >= 0) {
      for (size_t row = 0; row < 16; row++)
        memcpy(group + 2 * row, from + row * row_bytes + half_offset, 2);
      group += 32;
      // The words are what lies around the half word: behind it, or before it.
      if (half_offset == 0) from += 2;
    }
    for (size_t word = 0; word < words; word++, group += 64)
      for (size_t row = 0; row < 16; row++)
        memcpy(group + 4 * row, from + row * row_bytes + 4 * word, 4);
  }
}
