// Counts this process's allocations, for tests that promise there are none.
#pragma once

// Calls of malloc, calloc, realloc, aligned_alloc, memalign and posix_memalign by any thread so far.
long allocation_count(void);
