#include <flashinfer.h>
#include <stdio.h>

int main(int argc, char **argv) {
  flashinfer_error error = FLASHINFER_ERROR_INIT;
  flashinfer_options options = FLASHINFER_OPTIONS_INIT;
  options.ram = 200 << 20;
  flashinfer_loader *loader;
  if (argc != 2 || flashinfer_open(argv[1], &options, &loader, &error)) {
    fprintf(stderr, "%s\n", argc != 2 ? "usage: stream MODEL" : error.message);
    return 1;
  }
  flashinfer_status status = flashinfer_stream(loader, NULL, 0, &error);
  flashinfer_piece piece = FLASHINFER_PIECE_INIT;
  while (!status && !(status = flashinfer_next(loader, -1, &piece, &error))) {
    flashinfer_tensor tensor = {.size = sizeof tensor};
    status = flashinfer_tensor_at(loader, piece.tensor, &tensor, &error);
    if (!status) printf("%s: %llu bytes\n", tensor.name, (unsigned long long)piece.byte_count);
    flashinfer_release(piece.hold, NULL); /* piece.data must not be used from here on */
  }
  if (status != FLASHINFER_END) fprintf(stderr, "%s\n", error.message);
  flashinfer_close(loader, NULL);
  return status != FLASHINFER_END;
}
