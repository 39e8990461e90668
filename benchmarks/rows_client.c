/* Loads rows of a file's first tensor at random, a batch after the other, and prints one JSON object.
 * usage: rows_client FILE RAM DEPTH ROWS SECONDS SEED */
#include <flashinfer.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

static flashinfer_error error = FLASHINFER_ERROR_INIT;

static double seconds(void) {
  struct timespec now;
  timespec_get(&now, TIME_UTC);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* SplitMix64. */
static uint64_t draw(uint64_t *state) {
  uint64_t z = *state += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

/* A batch of rows, whose reads begin at once. */
static flashinfer_status ask(flashinfer_loader *loader, flashinfer_rows *rows, size_t count, uint64_t row_count,
                             uint64_t *state) {
  for (size_t i = 0; i < count; i++) rows[i] = (flashinfer_rows){0, 0, draw(state) % row_count, 1};
  return flashinfer_prefetch_rows(loader, rows, count, &error);
}

int main(int argc, char **argv) {
  if (argc != 7) return 64;
  flashinfer_options options = FLASHINFER_OPTIONS_INIT;
  options.ram = strtoull(argv[2], NULL, 10);
  options.queue_depth = (uint32_t)strtoul(argv[3], NULL, 10);
  options.stream_bytes = 1; /* As little as possible: nothing is streamed. */
  size_t count = strtoull(argv[4], NULL, 10);
  double limit = strtod(argv[5], NULL);
  flashinfer_loader *loader;
  flashinfer_tensor tensor = FLASHINFER_TENSOR_INIT;
  flashinfer_rows *rows[2] = {calloc(count, sizeof **rows), calloc(count, sizeof **rows)};
  flashinfer_piece *pieces = calloc(count, sizeof *pieces);
  if (!rows[0] || !rows[1] || !pieces) return 1;
  for (size_t i = 0; i < count; i++) pieces[i].size = sizeof *pieces;
  flashinfer_status status = flashinfer_open(argv[1], &options, &loader, &error);
  if (!status) status = flashinfer_tensor_at(loader, 0, &tensor, &error);

  uint64_t state = strtoull(argv[6], NULL, 10), bytes = 0;
  double start = seconds(), spent = 0;
  if (!status) status = ask(loader, rows[0], count, tensor.part_row_count, &state);
  for (int turn = 0; !status && spent < limit; turn ^= 1) {
    /* The next batch's reads follow this one's, so that the queue never runs empty. */
    status = ask(loader, rows[turn ^ 1], count, tensor.part_row_count, &state);
    if (!status) status = flashinfer_load_rows(loader, rows[turn], count, -1, pieces, &error);
    for (size_t i = 0; !status && i < count; i++) bytes += pieces[i].byte_count;
    if (!status) status = flashinfer_release(pieces[0].hold, &error);
    spent = seconds() - start;
  }
  if (status) {
    fprintf(stderr, "%s\n", error.message);
    return 1;
  }
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  printf("{\"bytes\":%llu,\"seconds\":%.6f,\"peakBytes\":%ld}\n", (unsigned long long)bytes, spent, usage.ru_maxrss * 1024);
  flashinfer_close(loader, NULL);
  free(rows[0]), free(rows[1]), free(pieces);
  return 0;
}
