#include <flashinfer.h>
#include <stdio.h>

int main(int argc, char **argv) {
  flashinfer_error error = FLASHINFER_ERROR_INIT;
  flashinfer_options options = FLASHINFER_OPTIONS_INIT;
  options.ram = 300 << 20;
  flashinfer_loader *loader;
  if (argc != 2 || flashinfer_open(argv[1], &options, &loader, &error)) {
    fprintf(stderr, "%s\n", argc != 2 ? "usage: stream MODEL" : error.message);
    return 1;
  }
  flashinfer_tensor tensor = FLASHINFER_TENSOR_INIT;
  flashinfer_piece piece = FLASHINFER_PIECE_INIT;
  flashinfer_status status = flashinfer_stream(loader, NULL, 0, &error);
  while (!status && !(status = flashinfer_next(loader, -1, &piece, &error))) {
    status = flashinfer_tensor_at(loader, piece.tensor, &tensor, &error);
    if (!status) {
      printf("%s: %llu rows from row %llu, %llu bytes\n", tensor.name, (unsigned long long)piece.row_count,
             (unsigned long long)piece.first_row, (unsigned long long)piece.byte_count);
    }
    flashinfer_release(piece.hold, NULL); /* piece.data must not be used from here on */
  }
  /* One row is one small read, however long its tensor is. */
  flashinfer_rows row = {.tensor = 0, .first_row = 0, .row_count = 1};
  if (status == FLASHINFER_END) status = flashinfer_load_rows(loader, &row, 1, -1, &piece, &error);
  if (!status) {
    printf("a row of tensor 0 has %llu bytes\n", (unsigned long long)piece.byte_count);
    flashinfer_release(piece.hold, NULL);
  } else {
    fprintf(stderr, "%s\n", error.message);
  }
  flashinfer_close(loader, NULL);
  return status != FLASHINFER_OK;
}
