// Shows ThreadSanitizer the order that Swift's Mutex makes where threads wait for each other. The library that
// waits is not instrumented, so each region under a lock that was waited for would be reported as a race.
#define _GNU_SOURCE
#include "thread_sanitizer.h"

#if __has_feature(thread_sanitizer)
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>

void __tsan_acquire(void *address);
void __tsan_release(void *address);

#define SWIFT __attribute__((swiftcall))
#define SELF __attribute__((swift_context)) void *self
#define LOCK "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
#define TRY_LOCK "$s15Synchronization12_MutexHandleV12_tryLockSlowSbyF"
#define UNLOCK "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"

// Synchronization._MutexHandle._lockSlow, which inlined code calls where a lock is taken.
SWIFT void lock_slow(uint32_t thread, SELF) __asm__(LOCK);
SWIFT void lock_slow(uint32_t thread, SELF) {
  typedef SWIFT void (*function)(uint32_t, SELF);
  ((function)dlsym(RTLD_NEXT, LOCK))(thread, self);
  __tsan_acquire(self);
}

SWIFT bool try_lock_slow(SELF) __asm__(TRY_LOCK);
SWIFT bool try_lock_slow(SELF) {
  typedef SWIFT bool (*function)(SELF);
  const bool is_taken = ((function)dlsym(RTLD_NEXT, TRY_LOCK))(self);
  if (is_taken) __tsan_acquire(self);
  return is_taken;
}

// Called where somebody waits; the word is given to that thread by the kernel.
SWIFT void unlock_slow(SELF) __asm__(UNLOCK);
SWIFT void unlock_slow(SELF) {
  typedef SWIFT void (*function)(SELF);
  __tsan_release(self);
  ((function)dlsym(RTLD_NEXT, UNLOCK))(self);
}
#endif
