/* Rows, the caller's memory, memory of the budget, metadata and places in files.
 * usage: rows FILE MODEL FOLDER; FILE as for interface.c, MODEL a GGUF file, FOLDER of safetensors files */
#define _POSIX_C_SOURCE 200112L
#include "expect.h"
#include <stdint.h>

static uint64_t find(flashinfer_loader *loader, const char *name) {
  uint64_t index = UINT64_MAX;
  EXPECT(!flashinfer_find(loader, name, &index, &error));
  return index;
}

static void check_rows(flashinfer_loader *loader) {
  flashinfer_rows rows[] = {{1, 0, 2, 1}, {1, 0, 0, FLASHINFER_ALL_ROWS}, {1, 0, 3, FLASHINFER_ALL_ROWS}, {0, 0, 0, 1}};
  flashinfer_piece pieces[4] = {FLASHINFER_PIECE_INIT, FLASHINFER_PIECE_INIT, FLASHINFER_PIECE_INIT, FLASHINFER_PIECE_INIT};
  EXPECT(!flashinfer_prefetch_rows(loader, rows, 4, &error));
  EXPECT(!flashinfer_load_rows(loader, rows, 4, -1, pieces, &error));
  EXPECT(pieces[0].byte_count == 16 && ((const float *)pieces[0].data)[0] == 108);
  EXPECT(pieces[0].first_row == 2 && pieces[0].row_count == 1 && pieces[0].byte_offset == 32);
  EXPECT(pieces[1].byte_count == 48 && pieces[1].row_count == 3 && pieces[2].byte_count == 0);
  EXPECT(pieces[3].byte_count == 64 && pieces[3].row_count == 1);
  EXPECT(!flashinfer_release(pieces[0].hold, &error));
  EXPECT(!flashinfer_stream_rows(loader, rows, 1, &error) && !flashinfer_next(loader, -1, pieces, &error));
  EXPECT(pieces[0].first_row == 2 && pieces[0].row_count == 1 && pieces[0].is_last && !flashinfer_release(pieces[0].hold, &error));
  EXPECT(flashinfer_next(loader, -1, pieces, &error) == FLASHINFER_END);

  const flashinfer_rows bad[] = {{1, 0, 3, 1}, {1, 0, 0, 4}, {1, 1, 0, 1}, {2, 0, 0, 1}, {1, 0, 4, FLASHINFER_ALL_ROWS}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    EXPECT_ERROR(flashinfer_load_rows(loader, bad + i, 1, -1, pieces, &error), FLASHINFER_NOT_FOUND);
    EXPECT_ERROR(flashinfer_stream_rows(loader, bad + i, 1, &error), FLASHINFER_NOT_FOUND);
  }
  EXPECT_ERROR(flashinfer_load_rows(loader, bad, 1, -1, pieces, &error), FLASHINFER_NOT_FOUND);
  EXPECT(strstr(error.message, "rows 3 to 4 of tensor 'second'"));
  flashinfer_rows huge = {1, 0, UINT64_MAX - 1, 1};
  EXPECT_ERROR(flashinfer_load_rows(loader, &huge, 1, -1, pieces, &error), FLASHINFER_INVALID);
  huge.first_row = INT64_MAX, huge.row_count = INT64_MAX;
  EXPECT_ERROR(flashinfer_stream_rows(loader, &huge, 1, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_load_rows(loader, rows, 0, -1, pieces, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_load_rows(loader, NULL, 1, -1, pieces, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_stream_rows(loader, NULL, 1, &error), FLASHINFER_INVALID);
}

/* A prefetch holds memory of the budget until it is taken or given up. */
static void check_cancelled_prefetch(flashinfer_loader *loader) {
  const flashinfer_rows rows[] = {{1, 0, 0, FLASHINFER_ALL_ROWS}, {0, 0, 0, 1}};
  const flashinfer_part parts[] = {{1, 0}};
  flashinfer_plan plan = FLASHINFER_PLAN_INIT;
  flashinfer_piece piece = FLASHINFER_PIECE_INIT;
  flashinfer_hold hold = 0;
  void *data = NULL;
  EXPECT(!flashinfer_get_plan(loader, &plan, &error));
  const uint64_t all = plan.held / 4096 * 4096;
  for (int round = 0; round < 3; round++) {
    EXPECT(!flashinfer_prefetch_rows(loader, rows, 2, &error) && !flashinfer_prefetch(loader, parts, 1, &error));
    EXPECT_ERROR(flashinfer_allocate(loader, all, &data, &hold, &error), FLASHINFER_NO_MEMORY);
    EXPECT(!flashinfer_cancel_prefetch_rows(loader, rows, 2, &error));
    EXPECT_ERROR(flashinfer_allocate(loader, all, &data, &hold, &error), FLASHINFER_NO_MEMORY);
    EXPECT(!flashinfer_cancel_prefetch(loader, parts, 1, &error));
    EXPECT(!flashinfer_allocate(loader, all, &data, &hold, &error) && !flashinfer_release(hold, &error));
  }
  /* There is none, and what was given up can be loaded all the same. */
  EXPECT(!flashinfer_cancel_prefetch(loader, parts, 1, &error) && !flashinfer_cancel_prefetch_rows(loader, rows, 1, &error));
  EXPECT(!flashinfer_load(loader, parts, 1, -1, &piece, &error) && ((const float *)piece.data)[11] == 111);
  EXPECT(!flashinfer_release(piece.hold, &error));
  EXPECT_ERROR(flashinfer_cancel_prefetch(loader, NULL, 1, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_cancel_prefetch_rows(NULL, rows, 1, &error), FLASHINFER_INVALID);
}

static void check_memory(flashinfer_loader *loader) {
  flashinfer_rows rows[] = {{1, 0, 1, 2}, {0, 0, 0, 1}};
  flashinfer_piece pieces[2] = {FLASHINFER_PIECE_INIT, FLASHINFER_PIECE_INIT};
  uint64_t needed = 0;
  EXPECT(!flashinfer_load_byte_count(loader, rows, 2, &needed, &error) && needed >= 4096 && needed % 4096 == 0);
  unsigned char *memory;
  EXPECT(!posix_memalign((void **)&memory, 4096, needed + 4096));
  memset(memory, 0xA5, needed + 4096);
  EXPECT(!flashinfer_load_into(loader, rows, 2, memory, needed, pieces, &error));
  EXPECT(pieces[0].hold == 0 && (const unsigned char *)pieces[0].data >= memory);
  EXPECT((const unsigned char *)pieces[0].data + 32 <= memory + needed && ((const float *)pieces[0].data)[0] == 104);
  EXPECT(((const float *)pieces[1].data)[15] == 15 && pieces[1].row_count == 1);
  for (size_t i = 0; i < 4096; i++) EXPECT(memory[needed + i] == 0xA5);
  EXPECT_ERROR(flashinfer_load_into(loader, rows, 2, memory + 8, needed, pieces, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_load_into(loader, rows, 2, memory, needed - 1, pieces, &error), FLASHINFER_INVALID);
  EXPECT(strstr(error.message, "multiple of 4096"));
  EXPECT_ERROR(flashinfer_load_into(loader, rows, 2, NULL, needed, pieces, &error), FLASHINFER_INVALID);
  free(memory);

  void *data = NULL;
  flashinfer_hold hold = 0;
  EXPECT(!flashinfer_allocate(loader, 1000, &data, &hold, &error) && data && hold);
  memset(data, 1, 1000);
  EXPECT(!flashinfer_release(hold, &error));
  EXPECT_ERROR(flashinfer_release(hold, &error), FLASHINFER_CLOSED);
  EXPECT_ERROR(flashinfer_allocate(loader, (uint64_t)1 << 40, &data, &hold, &error), FLASHINFER_NO_MEMORY);
  EXPECT_ERROR(flashinfer_allocate(loader, UINT64_MAX, &data, &hold, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_allocate(loader, 1, NULL, &hold, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_allocate(loader, 1, &data, NULL, &error), FLASHINFER_INVALID);
}

/* The bytes of a tensor are where the library says that they are in the file. */
static void check_places(flashinfer_loader *loader, const char *path) {
  char found[4096];
  size_t length = 0;
  EXPECT(!flashinfer_file_at(loader, 0, found, sizeof found, &length, &error) && !strcmp(found, path) && length == strlen(path));
  memset(found, 1, sizeof found);
  EXPECT(!flashinfer_file_at(loader, 0, found, 3, &length, &error) && length == strlen(path) && found[0] == 1);
  EXPECT_ERROR(flashinfer_file_at(loader, 1, found, sizeof found, &length, &error), FLASHINFER_NOT_FOUND);
  flashinfer_tensor tensor = FLASHINFER_TENSOR_INIT;
  EXPECT(!flashinfer_tensor_at(loader, 1, &tensor, &error));
  EXPECT(tensor.column_count == 4 && tensor.part_row_count == 3 && tensor.unit_row_count == 1 && tensor.unit_byte_count == 16);
  float values[12];
  FILE *file = fopen(path, "rb");
  EXPECT(file && tensor.file == 0 && !fseek(file, (long)tensor.file_offset, SEEK_SET) && fread(values, 4, 12, file) == 12);
  EXPECT(values[0] == 100 && values[11] == 111);
  fclose(file);
}

static void check_metadata(const char *model, const char *folder) {
  flashinfer_loader *loader;
  EXPECT(!flashinfer_open(model, NULL, &loader, &error));
  uint64_t count = 0, index = 0;
  EXPECT(!flashinfer_metadata_count(loader, &count, &error) && count > 5);
  flashinfer_metadata metadata = FLASHINFER_METADATA_INIT;
  EXPECT(!flashinfer_metadata_find(loader, "general.architecture", &index, &error));
  EXPECT(!flashinfer_metadata_at(loader, index, &metadata, &error));
  EXPECT(!strcmp(metadata.key, "general.architecture") && !strcmp(metadata.type, "string") && !metadata.is_array);
  char text[256] = {0};
  EXPECT(metadata.byte_count < sizeof text && !flashinfer_metadata_read(loader, index, text, sizeof text, &error));
  EXPECT(!strcmp(text, "llama"));
  EXPECT_ERROR(flashinfer_metadata_read(loader, index, text, metadata.byte_count - 1, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_metadata_read(loader, index, NULL, sizeof text, &error), FLASHINFER_INVALID);
  EXPECT(!flashinfer_metadata_find(loader, "tokenizer.ggml.tokens", &index, &error));
  EXPECT(!flashinfer_metadata_at(loader, index, &metadata, &error) && metadata.is_array && metadata.count > 10);
  unsigned char *tokens = malloc(metadata.byte_count);
  EXPECT(tokens && !flashinfer_metadata_read(loader, index, tokens, metadata.byte_count, &error));
  uint64_t length, end = 0, number = 0;
  while (end + sizeof length <= metadata.byte_count) {
    memcpy(&length, tokens + end, sizeof length);
    end += sizeof length + length;
    number++;
  }
  EXPECT(end == metadata.byte_count && number == metadata.count);
  free(tokens);
  EXPECT_ERROR(flashinfer_metadata_find(loader, "nothing", &index, &error), FLASHINFER_NOT_FOUND);
  EXPECT_ERROR(flashinfer_metadata_find(loader, NULL, &index, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_metadata_at(loader, count, &metadata, &error), FLASHINFER_NOT_FOUND);
  metadata.size = 8;
  EXPECT_ERROR(flashinfer_metadata_at(loader, 0, &metadata, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_metadata_count(loader, NULL, &error), FLASHINFER_INVALID);
  EXPECT(!flashinfer_close(loader, &error));
  EXPECT_ERROR(flashinfer_metadata_count(loader, &count, &error), FLASHINFER_CLOSED);

  /* Files of a folder, each with what it says. */
  EXPECT(!flashinfer_open(folder, NULL, &loader, &error));
  metadata.size = sizeof metadata;
  EXPECT(!flashinfer_metadata_count(loader, &count, &error) && count == 2);
  for (uint64_t i = 0; i < 2; i++) {
    EXPECT(!flashinfer_metadata_at(loader, i, &metadata, &error) && metadata.file == i && !strcmp(metadata.key, "number"));
    EXPECT(metadata.byte_count == 1 && !flashinfer_metadata_read(loader, i, text, 1, &error) && text[0] == '0' + (char)i);
  }
  EXPECT(!flashinfer_close(loader, &error));
}

/* The ring is as long as the program says, and what is left is for tensors. */
static void check_division(const char *path) {
  flashinfer_options options = FLASHINFER_OPTIONS_INIT;
  flashinfer_plan plan = FLASHINFER_PLAN_INIT;
  flashinfer_loader *loader;
  uint64_t held = 0;
  options.ram = 300 << 20;
  for (options.stream_bytes = 8 << 20; options.stream_bytes <= 32 << 20; options.stream_bytes *= 2) {
    EXPECT(!flashinfer_open(path, &options, &loader, &error) && !flashinfer_get_plan(loader, &plan, &error));
    EXPECT(plan.stream == options.stream_bytes && (held == 0 || plan.held < held));
    held = plan.held;
    EXPECT(!flashinfer_close(loader, &error));
  }
  options.stream_bytes = 300 << 20;
  EXPECT_ERROR(flashinfer_open(path, &options, &loader, &error), FLASHINFER_NO_MEMORY);
  flashinfer_statistics statistics = FLASHINFER_STATISTICS_INIT;
  EXPECT(statistics.size == sizeof statistics);
}

int main(int argc, char **argv) {
  EXPECT(argc == 4);
  flashinfer_options options = FLASHINFER_OPTIONS_INIT;
  options.ram = 300 << 20;
  flashinfer_loader *loader;
  EXPECT(!flashinfer_open(argv[1], &options, &loader, &error));
  check_rows(loader);
  check_cancelled_prefetch(loader);
  check_memory(loader);
  check_places(loader, argv[1]);
  EXPECT(find(loader, "second") == 1);
  EXPECT(!flashinfer_close(loader, &error));
  check_metadata(argv[2], argv[3]);
  check_division(argv[1]);
  puts("ok");
  return 0;
}
