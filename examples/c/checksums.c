/*
 * Checks a model as fast as the drive reads it.
 *
 *   checksums MODEL              prints the XXH3-64 of every tensor
 *   checksums MODEL --check FILE compares with what an earlier run printed
 *
 * What a flash image says of itself is compared by the library, whichever way it is called.
 *
 * cc -O2 checksums.c $(pkg-config --cflags --libs flashinfer libxxhash) -o checksums
 */
#include <flashinfer.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

static flashinfer_error error = FLASHINFER_ERROR_INIT;

static int fail(const char *message) {
  fprintf(stderr, "checksums: %s\n", message);
  return 1;
}

static double seconds(void) {
  struct timespec now;
  timespec_get(&now, TIME_UTC);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Streams all tensors once; sums[i] becomes the checksum of tensor i. */
static flashinfer_status sum_all(flashinfer_loader *loader, XXH3_state_t **states, uint64_t *bytes) {
  flashinfer_piece piece = FLASHINFER_PIECE_INIT;
  flashinfer_status status = flashinfer_stream(loader, NULL, 0, &error);
  while (!status && !(status = flashinfer_next(loader, -1, &piece, &error))) {
    /* Parts of a stacked tensor come in order, pieces of others between them. */
    XXH3_state_t **state = &states[piece.tensor];
    if (!*state) {
      *state = XXH3_createState();
      if (*state) XXH3_64bits_reset(*state);
    }
    if (*state) XXH3_64bits_update(*state, piece.data, piece.byte_count);
    *bytes += piece.byte_count;
    flashinfer_release(piece.hold, NULL);
  }
  return status;
}

/* Compares with the lines "SUM  NAME" of a file; the number of tensors that differ or are missing. */
static uint64_t compare(const char *path, flashinfer_loader *loader, const uint64_t *sums, uint64_t count) {
  char line[4096];
  uint64_t found = 0, different = 0;
  FILE *file = fopen(path, "r");
  if (!file) return count + 1;
  while (fgets(line, sizeof line, file)) {
    uint64_t index, sum = strtoull(line, NULL, 16);
    char *name = strchr(line, ' ');
    if (!name) continue;
    name += strspn(name, " ");
    name[strcspn(name, "\n")] = 0;
    if (flashinfer_find(loader, name, &index, &error)) {
      fail(error.message);
      different++;
      continue;
    }
    found++;
    if (sums[index] == sum) continue;
    printf("%s: differs\n", name);
    different++;
  }
  fclose(file);
  return different + (found < count ? count - found : 0);
}

int main(int argc, char **argv) {
  if (argc != 2 && (argc != 4 || strcmp(argv[2], "--check"))) return fail("usage: checksums MODEL [--check FILE]");
  flashinfer_options options = FLASHINFER_OPTIONS_INIT;
  options.ram = 128 << 20;
  options.caller_bytes = 8 << 20;
  flashinfer_loader *loader;
  if (flashinfer_open(argv[1], &options, &loader, &error)) return fail(error.message);
  uint64_t count = 0, bytes = 0;
  flashinfer_tensor_count(loader, &count, &error);
  XXH3_state_t **states = calloc(count + 1, sizeof *states);
  uint64_t *sums = calloc(count + 1, sizeof *sums);
  if (!states || !sums) return fail("no memory");

  double start = seconds();
  flashinfer_status status = sum_all(loader, states, &bytes);
  double spent = seconds() - start;
  for (uint64_t i = 0; i < count; i++) {
    if (states[i]) sums[i] = XXH3_64bits_digest(states[i]);
    XXH3_freeState(states[i]);
  }
  int result = status != FLASHINFER_END ? fail(error.message) : 0;
  if (!result && argc == 4) {
    uint64_t different = compare(argv[3], loader, sums, count);
    if (different) result = fail("not every tensor is as it was");
  } else if (!result) {
    for (uint64_t i = 0; i < count; i++) {
      flashinfer_tensor tensor = FLASHINFER_TENSOR_INIT;
      if (!flashinfer_tensor_at(loader, i, &tensor, &error)) printf("%016" PRIx64 "  %s\n", sums[i], tensor.name);
    }
  }
  fprintf(stderr, "%" PRIu64 " bytes in %.3f s: %.3f GB/s\n", bytes, spent, (double)bytes / spent / 1e9);
  free(states);
  free(sums);
  flashinfer_close(loader, NULL);
  return result;
}
