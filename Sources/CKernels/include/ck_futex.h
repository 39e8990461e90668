// Sleeping and waking on a 32-bit word, and the pause that spinning loops want.
#pragma once
#include <stdint.h>

// Sleeps while *word is `expected`; may also return early.
void ck_futex_wait(const void *word, uint32_t expected);
// Wakes everybody who sleeps on the word.
void ck_futex_wake_all(const void *word);

static inline void ck_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}
