/* Opening, using and closing again and again keeps nothing: no memory, no descriptor, no thread.
 * usage: cycles FILE MODEL FOREIGN COUNT */
#include "expect.h"
#include <dirent.h>
#include <stdint.h>
#include <unistd.h>

static int32_t ignore(void *context, const char *text, size_t count) {
  (void)context, (void)text, (void)count;
  return 0;
}

static long status(const char *name) {
  char line[256];
  long value = -1;
  FILE *file = fopen("/proc/self/status", "r");
  EXPECT(file);
  while (fgets(line, sizeof line, file)) {
    if (!strncmp(line, name, strlen(name))) value = strtol(line + strlen(name) + 1, NULL, 10);
  }
  fclose(file);
  return value;
}

/* The system counts a thread for a moment after it was joined, and those of its own that end rings. */
static int threads_settle(long most) {
  for (int i = 0; i < 1000 && status("Threads:") > most; i++) usleep(10000);
  return status("Threads:") <= most;
}

static int descriptors(void) {
  int count = 0;
  DIR *folder = opendir("/proc/self/fd");
  EXPECT(folder);
  while (readdir(folder)) count++;
  closedir(folder);
  return count;
}

static void use_loader(const char *path, uint32_t backend) {
  flashinfer_options options = FLASHINFER_OPTIONS_INIT;
  options.ram = (uint64_t)1 << 33;
  options.backend = backend;
  flashinfer_loader *loader;
  EXPECT(!flashinfer_open(path, &options, &loader, &error));
  flashinfer_piece piece = FLASHINFER_PIECE_INIT, kept = FLASHINFER_PIECE_INIT;
  EXPECT(!flashinfer_stream(loader, NULL, 0, &error) && !flashinfer_next(loader, -1, &kept, &error));
  flashinfer_part part = {1, 0};
  EXPECT(!flashinfer_prefetch(loader, &part, 1, &error) && !flashinfer_load(loader, &part, 1, -1, &piece, &error));
  uint64_t index;
  EXPECT_ERROR(flashinfer_find(loader, "no such tensor", &index, &error), FLASHINFER_NOT_FOUND);
  EXPECT(!flashinfer_release(piece.hold, &error) && !flashinfer_close(loader, &error));
  EXPECT(!flashinfer_release(kept.hold, &error));
}

static void use_generator(const char *path, int cancels) {
  flashinfer_generator_options options = FLASHINFER_GENERATOR_OPTIONS_INIT;
  options.context_length = 32;
  options.thread_count = 2;
  options.ram = (uint64_t)1 << 33;
  flashinfer_generator *generator;
  EXPECT(!flashinfer_generator_open(path, &options, &generator, &error));
  flashinfer_generation generation = FLASHINFER_GENERATION_INIT;
  generation.maximum_tokens = 2;
  if (cancels) EXPECT(!flashinfer_cancel(generator, &error));
  flashinfer_status outcome = flashinfer_generate(generator, "a", &generation, ignore, NULL, NULL, &error);
  EXPECT(outcome == (cancels ? FLASHINFER_CANCELLED : FLASHINFER_OK));
  EXPECT(!flashinfer_generator_close(generator, &error));
}

static void cycle(char **argv, int number) {
  /* Rings take the system long to end. */
  use_loader(argv[1], number % 8 == 0 ? 1 : 2 + (uint32_t)number % 2);
  flashinfer_loader *loader;
  EXPECT_ERROR(flashinfer_open(argv[3], NULL, &loader, &error), FLASHINFER_BAD_DATA);
  if (number % 8 == 4) use_generator(argv[2], number % 16 == 4);
}

int main(int argc, char **argv) {
  EXPECT(argc == 5);
  int count = atoi(argv[4]);
  for (int i = 0; i < count / 5; i++) cycle(argv, i);
  long memory = status("VmRSS:"), threads = status("Threads:");
  int files = descriptors();
  for (int i = 0; i < count; i++) cycle(argv, i);
  EXPECT(descriptors() == files);
  EXPECT(threads_settle(threads));
  long grown = status("VmRSS:") - memory;
  fprintf(stderr, "%d cycles: %ld KiB more\n", count, grown);
#if !__has_feature(address_sanitizer) /* It keeps freed memory aside, and finds leaks in its own way. */
  EXPECT(grown < 512);
#endif
  puts("ok");
  return 0;
}
