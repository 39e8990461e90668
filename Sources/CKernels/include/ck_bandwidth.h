// Plain reading of memory, to learn what it gives.
#pragma once
#include <stddef.h>
#include <stdint.h>

// Reads `count` bytes, a multiple of 256, from a 64-byte-aligned address; the exclusive or of all
// 8-byte words, so that no compiler may leave the reading out.
uint64_t ck_read_memory(const void *bytes, size_t count);

// Asks for the cache lines of `count` bytes, which need not be mapped.
void ck_prefetch(const void *bytes, size_t count);
