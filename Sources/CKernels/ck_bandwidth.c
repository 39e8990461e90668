// Reads memory with as little else as possible. The prefetch distance covers DRAM's latency: a core
// that waits for its own loads does not fill the lines it may have under way.
#include "CKernels.h"

typedef uint64_t line __attribute__((vector_size(64)));

uint64_t ck_read_memory(const void *bytes, size_t count) {
  const line *p = bytes;
  line a = {0}, b = {0}, c = {0}, d = {0};
  for (size_t i = 0; i + 4 <= count / sizeof(line); i += 4) {
    // Prefetching past the end is harmless: it never faults.
    const char *ahead = (const char *)(p + i) + 4096;
    __builtin_prefetch(ahead);
    __builtin_prefetch(ahead + 64);
    __builtin_prefetch(ahead + 128);
    __builtin_prefetch(ahead + 192);
    a ^= p[i];
    b ^= p[i + 1];
    c ^= p[i + 2];
    d ^= p[i + 3];
  }
  a ^= b ^ c ^ d;
  uint64_t sum = 0;
  for (int i = 0; i < 8; i++) sum ^= a[i];
  return sum;
}

void ck_prefetch(const void *bytes, size_t count) {
  for (size_t i = 0; i < count; i += 64) __builtin_prefetch((const char *)bytes + i, 0, 2);
}
