// libFuzzer's way in for programs with a main function of their own, and LeakSanitizer's switch.
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*callback)(const uint8_t *data, size_t size));

void __lsan_disable(void);
void __lsan_enable(void);
