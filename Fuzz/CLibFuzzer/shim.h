// libFuzzer's way in for programs with a main function of their own, and LeakSanitizer's switch, which does
// nothing in a program without it.
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*callback)(const uint8_t *data, size_t size));

__attribute__((weak)) void __lsan_disable(void);
__attribute__((weak)) void __lsan_enable(void);

static inline void stop_counting_leaks(void) {
  if (__lsan_disable) __lsan_disable();
}

static inline void count_leaks(void) {
  if (__lsan_enable) __lsan_enable();
}
