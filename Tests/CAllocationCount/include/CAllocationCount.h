// Counts this process's allocations, for tests that promise there are none.
#pragma once

#include <stdbool.h>

// Calls of malloc, calloc, realloc, aligned_alloc, memalign and posix_memalign by any thread so far.
long allocation_count(void);

// Whether allocations are counted: not in a process with a sanitizer.
bool allocation_count_is_available(void);
