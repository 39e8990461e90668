/* Streams a file of tensors with libflashinfer and prints one JSON object.
 * usage: load_client FILE RAM BLOCK DEPTH [PIECE] */
#include <flashinfer.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

static double seconds(void) {
  struct timespec now;
  timespec_get(&now, TIME_UTC);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
  flashinfer_error error = FLASHINFER_ERROR_INIT;
  flashinfer_options options = FLASHINFER_OPTIONS_INIT;
  flashinfer_loader *loader;
  if (argc < 5) return 64;
  options.ram = strtoull(argv[2], NULL, 10);
  options.read_bytes = strtoull(argv[3], NULL, 10);
  options.queue_depth = (uint32_t)strtoul(argv[4], NULL, 10);
  double start = seconds(), first = 0;
  if (flashinfer_open(argv[1], &options, &loader, &error)) {
    fprintf(stderr, "%s\n", error.message);
    return 1;
  }
  double opened = seconds();
  flashinfer_status status = flashinfer_stream(loader, NULL, 0, &error);
  flashinfer_piece piece = FLASHINFER_PIECE_INIT;
  unsigned long long bytes = 0;
  while (!status && !(status = flashinfer_next(loader, -1, &piece, &error))) {
    if (!bytes) first = seconds();
    bytes += piece.byte_count;
    flashinfer_release(piece.hold, NULL);
  }
  double spent = seconds() - opened;
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  if (status != FLASHINFER_END) fprintf(stderr, "%s\n", error.message);
  printf("{\"bytes\":%llu,\"seconds\":%.6f,\"firstSeconds\":%.6f,\"peakBytes\":%ld}\n", bytes, spent,
         first - start, usage.ru_maxrss * 1024);
  flashinfer_close(loader, NULL);
  return status != FLASHINFER_END;
}
