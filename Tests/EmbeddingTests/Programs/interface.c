/* The C interface as its header promises it, on a file with two F32 tensors of known contents.
 * usage: interface MODEL FOREIGN TRUNCATED */
#include "expect.h"
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static void open_fails(const char *path, uint64_t ram, flashinfer_status expected) {
  flashinfer_options options = FLASHINFER_OPTIONS_INIT;
  options.ram = ram;
  flashinfer_loader *loader = (flashinfer_loader *)&options;
  EXPECT_ERROR(flashinfer_open(path, &options, &loader, &error), expected);
  EXPECT(loader == (flashinfer_loader *)&options);
}

static uint64_t stream_all(flashinfer_loader *loader) {
  flashinfer_piece piece = FLASHINFER_PIECE_INIT;
  flashinfer_status status;
  uint64_t bytes = 0;
  EXPECT(!flashinfer_stream(loader, NULL, 0, &error));
  while (!(status = flashinfer_next(loader, -1, &piece, &error))) {
    bytes += piece.byte_count;
    EXPECT(!flashinfer_release(piece.hold, &error));
  }
  EXPECT(status == FLASHINFER_END);
  return bytes;
}

static void check_contents(flashinfer_loader *loader) {
  uint64_t count = 0, index = 9;
  EXPECT(!flashinfer_tensor_count(loader, &count, &error) && count == 2);
  EXPECT(!flashinfer_find(loader, "second", &index, &error) && index == 1);
  flashinfer_tensor tensor = {.size = sizeof tensor};
  EXPECT(!flashinfer_tensor_at(loader, index, &tensor, &error));
  EXPECT(!strcmp(tensor.name, "second") && !strcmp(tensor.type, "F32") && tensor.is_weight);
  EXPECT(tensor.dimension_count == 2 && tensor.shape[0] == 3 && tensor.shape[1] == 4);
  EXPECT(tensor.byte_count == 48 && tensor.part_count == 1 && tensor.layout == 0);
  EXPECT_ERROR(flashinfer_find(loader, "third", &index, &error), FLASHINFER_NOT_FOUND);
  EXPECT_ERROR(flashinfer_tensor_at(loader, 2, &tensor, &error), FLASHINFER_NOT_FOUND);

  flashinfer_part parts[2] = {{1, 0}, {0, 0}};
  flashinfer_piece pieces[2] = {FLASHINFER_PIECE_INIT, FLASHINFER_PIECE_INIT};
  EXPECT(!flashinfer_prefetch(loader, parts, 2, &error));
  EXPECT(!flashinfer_load(loader, parts, 2, -1, pieces, &error));
  EXPECT(pieces[0].byte_count == 48 && pieces[0].hold == pieces[1].hold);
  const float *values = pieces[0].data;
  for (int i = 0; i < 12; i++) EXPECT(values[i] == (float)(100 + i));
  float row[4];
  EXPECT(!flashinfer_dequantise(loader, 1, pieces[0].data, 48, 1, 1, row, 4, &error) && row[0] == 104);
  EXPECT_ERROR(flashinfer_dequantise(loader, 1, pieces[0].data, 48, 2, 2, row, 8, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_dequantise(loader, 1, pieces[0].data, 48, 1, 1, row, 3, &error), FLASHINFER_INVALID);
  EXPECT(!flashinfer_release(pieces[0].hold, &error));
  EXPECT_ERROR(flashinfer_release(pieces[0].hold, &error), FLASHINFER_CLOSED);
  parts[0].part = 1;
  EXPECT_ERROR(flashinfer_load(loader, parts, 1, -1, pieces, &error), FLASHINFER_NOT_FOUND);
  EXPECT_ERROR(flashinfer_load(loader, parts, 0, -1, pieces, &error), FLASHINFER_INVALID);
  size_t found = 0;
  EXPECT_ERROR(flashinfer_bundle(loader, 0, 0, parts, 2, &found, &error), FLASHINFER_NOT_FOUND);

  EXPECT(stream_all(loader) == 48 + 64);
  EXPECT(!flashinfer_stream(loader, parts + 1, 1, &error));
  flashinfer_piece piece = FLASHINFER_PIECE_INIT;
  EXPECT(!flashinfer_next(loader, 1000, &piece, &error) && piece.tensor == 0 && piece.is_last);
  EXPECT(flashinfer_next(loader, 1000, &piece, &error) == FLASHINFER_END);
  EXPECT(!flashinfer_release(piece.hold, &error));
  flashinfer_statistics statistics = {.size = sizeof statistics};
  EXPECT(!flashinfer_get_statistics(loader, &statistics, &error) && statistics.bytes_read >= 112);
  flashinfer_plan plan = {.size = sizeof plan};
  EXPECT(!flashinfer_get_plan(loader, &plan, &error) && plan.budget == 300 << 20);
}

static void check_arguments(const char *path, flashinfer_loader *loader) {
  flashinfer_loader *other;
  flashinfer_options options = FLASHINFER_OPTIONS_INIT;
  EXPECT_ERROR(flashinfer_open(NULL, NULL, &other, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_open(path, NULL, NULL, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_open("/\xff\xfe", NULL, &other, &error), FLASHINFER_NO_FILE);
  EXPECT(!strcmp(error.path, "/\xff\xfe") && strstr(error.message, "/\\xff\\xfe") && error.system_error == 2);
  options.read_bytes = 5000;
  EXPECT_ERROR(flashinfer_open(path, &options, &other, &error), FLASHINFER_INVALID);
  options.size = 8;
  EXPECT_ERROR(flashinfer_open(path, &options, &other, &error), FLASHINFER_INVALID);
  flashinfer_piece piece = {.size = 0};
  EXPECT_ERROR(flashinfer_next(loader, 0, &piece, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_next(loader, 0, NULL, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_close(NULL, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_close((flashinfer_loader *)&options, &error), FLASHINFER_CLOSED);
  EXPECT_ERROR(flashinfer_generator_close((flashinfer_generator *)loader, &error), FLASHINFER_CLOSED);
  EXPECT_ERROR(flashinfer_release(0, &error), FLASHINFER_CLOSED);
  EXPECT(flashinfer_open("/nowhere", NULL, &other, NULL) == FLASHINFER_NO_FILE);
}

struct race {
  flashinfer_loader *loader;
  int busy, other;
};

static void *use(void *argument) {
  struct race *race = argument;
  for (int i = 0; i < 3000; i++) {
    flashinfer_status status = flashinfer_stream(race->loader, NULL, 0, NULL);
    if (status == FLASHINFER_BUSY) race->busy++;
    else if (status) race->other++;
    flashinfer_piece piece = FLASHINFER_PIECE_INIT;
    status = flashinfer_next(race->loader, 100, &piece, NULL);
    if (status == FLASHINFER_OK) flashinfer_release(piece.hold, NULL);
    else if (status == FLASHINFER_BUSY) race->busy++;
    else if (status != FLASHINFER_END) race->other++;
  }
  return NULL;
}

/* Two threads at once: each call works or is refused, nothing else. */
static void check_threads(flashinfer_loader *loader) {
  struct race races[2] = {{loader, 0, 0}, {loader, 0, 0}};
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, use, &races[i]);
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  EXPECT(races[0].other == 0 && races[1].other == 0);
  EXPECT(stream_all(loader) == 112);
}

/* A child is refused its parent's loader and can open its own; the parent's goes on. */
static void check_fork(const char *path, flashinfer_loader *loader) {
  EXPECT(!flashinfer_stream(loader, NULL, 0, &error));
  pid_t child = fork();
  if (child == 0) {
    uint64_t count;
    flashinfer_piece piece = FLASHINFER_PIECE_INIT;
    EXPECT_ERROR(flashinfer_next(loader, -1, &piece, &error), FLASHINFER_FORKED);
    EXPECT_ERROR(flashinfer_tensor_count(loader, &count, &error), FLASHINFER_FORKED);
    EXPECT_ERROR(flashinfer_close(loader, &error), FLASHINFER_FORKED);
    flashinfer_loader *own;
    EXPECT(!flashinfer_open(path, NULL, &own, &error));
    EXPECT(stream_all(own) == 112 && !flashinfer_close(own, &error));
    _exit(0); /* Without the parent's destructors, and its handles are no leak. */
  }
  int status = 1;
  waitpid(child, &status, 0);
  EXPECT(status == 0 && stream_all(loader) == 112);
}

int main(int argc, char **argv) {
  EXPECT(argc == 4 && flashinfer_abi_version() == FLASHINFER_ABI_VERSION);
  EXPECT(!strcmp(flashinfer_version(), FLASHINFER_VERSION));
  open_fails("/nowhere/at/all", 0, FLASHINFER_NO_FILE);
  open_fails("/dev/null", 0, FLASHINFER_BAD_DATA);
  open_fails(argv[2], 0, FLASHINFER_BAD_DATA);
  open_fails(argv[3], 0, FLASHINFER_BAD_DATA);
  open_fails(argv[1], 1 << 20, FLASHINFER_NO_MEMORY);
  flashinfer_generator *generator;
  EXPECT_ERROR(flashinfer_generator_open(argv[1], NULL, &generator, &error), FLASHINFER_BAD_DATA);

  flashinfer_options options = FLASHINFER_OPTIONS_INIT;
  options.ram = 300 << 20;
  flashinfer_loader *loader;
  EXPECT(!flashinfer_open(argv[1], &options, &loader, &error));
  check_contents(loader);
  check_arguments(argv[1], loader);
  check_threads(loader);
  check_fork(argv[1], loader);

  /* A cancellation before a stream is not lost, and ends one wait. */
  flashinfer_piece piece = FLASHINFER_PIECE_INIT;
  flashinfer_part part = {1, 0};
  EXPECT(!flashinfer_cancel(loader, &error) && !flashinfer_stream(loader, &part, 1, &error));
  EXPECT_ERROR(flashinfer_next(loader, -1, &piece, &error), FLASHINFER_CANCELLED);

  /* Memory that is lent outlives its loader. */
  EXPECT(!flashinfer_stream(loader, &part, 1, &error) && !flashinfer_next(loader, -1, &piece, &error));
  EXPECT(!flashinfer_close(loader, &error));
  EXPECT(((const float *)piece.data)[11] == 111);
  EXPECT(!flashinfer_release(piece.hold, &error));
  EXPECT_ERROR(flashinfer_stream(loader, NULL, 0, &error), FLASHINFER_CLOSED);
  EXPECT_ERROR(flashinfer_close(loader, &error), FLASHINFER_CLOSED);
  puts("ok");
  return 0;
}
