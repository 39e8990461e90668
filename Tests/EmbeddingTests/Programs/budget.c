/* Uses of a file that is larger than the budget: prints the process's peak, the budget, and how many were refused.
 * usage: budget FILE MODEL BUDGET USE...; uses are KIND:TENSOR:COUNT, as BudgetTests.swift lists them */
#define _POSIX_C_SOURCE 200112L
#include "expect.h"
#include <stdint.h>

#define CALLER_BYTES ((uint64_t)8 << 20)

static const char *file;
static uint64_t budget;
static flashinfer_loader *loader;
static volatile uint64_t sum;

static uint64_t peak(void) {
  FILE *status = fopen("/proc/self/status", "r");
  EXPECT(status);
  char line[256];
  unsigned long kibibytes = 0;
  while (fgets(line, sizeof line, status) && sscanf(line, "VmHWM: %lu", &kibibytes) != 1) {}
  fclose(status);
  return (uint64_t)kibibytes << 10;
}

static void open_loader(void) {
  if (loader) return;
  flashinfer_options options = FLASHINFER_OPTIONS_INIT;
  options.ram = budget;
  options.caller_bytes = CALLER_BYTES;
  options.piece_bytes = 2 << 20;
  options.stream_bytes = 12 << 20;
  EXPECT(!flashinfer_open(file, &options, &loader, &error));
}

static void close_loader(void) {
  if (loader) EXPECT(!flashinfer_close(loader, &error));
  loader = NULL;
}

/* Whether a call was refused for want of memory; any other failure ends the program. */
static int is_refused(flashinfer_status status) {
  EXPECT(status == FLASHINFER_OK || status == FLASHINFER_NO_MEMORY);
  return status == FLASHINFER_NO_MEMORY;
}

static void touch(const flashinfer_piece *piece) {
  for (uint64_t i = 0; i < piece->byte_count; i += 64) sum += ((const unsigned char *)piece->data)[i];
}

static int load(const flashinfer_rows *rows, size_t count) {
  flashinfer_piece *pieces = calloc(count, sizeof *pieces);
  EXPECT(pieces);
  for (size_t i = 0; i < count; i++) pieces[i].size = sizeof *pieces;
  int refused = is_refused(flashinfer_load_rows(loader, rows, count, -1, pieces, &error));
  for (size_t i = 0; !refused && i < count; i++) touch(pieces + i);
  if (!refused) EXPECT(!flashinfer_release(pieces[0].hold, &error));
  free(pieces);
  return refused;
}

/* Converts rows [first, first + count) of what a piece has to memory of the budget. */
static int dequantise(const flashinfer_piece *piece, const flashinfer_tensor *tensor) {
  void *values;
  flashinfer_hold hold;
  uint64_t count = piece->row_count * tensor->column_count;
  if (is_refused(flashinfer_allocate(loader, count * sizeof(float), &values, &hold, &error))) return 1;
  EXPECT(!flashinfer_dequantise(loader, piece->tensor, piece->data, piece->byte_count, 0, piece->row_count, values,
                                count, &error));
  EXPECT(!flashinfer_release(hold, &error));
  return 0;
}

static int stream(const flashinfer_rows *rows, const flashinfer_tensor *converted) {
  int refused = 0;
  flashinfer_piece piece = FLASHINFER_PIECE_INIT;
  EXPECT(!flashinfer_stream_rows(loader, rows, 1, &error));
  while (flashinfer_next(loader, -1, &piece, &error) == FLASHINFER_OK) {
    touch(&piece);
    if (converted) refused |= dequantise(&piece, converted);
    EXPECT(!flashinfer_release(piece.hold, &error));
  }
  return refused;
}

/* The whole tensor as floats, in memory of the budget, some rows at a time. */
static int load_floats(uint64_t number, const flashinfer_tensor *tensor) {
  void *values;
  flashinfer_hold hold;
  uint64_t count = tensor->part_row_count * tensor->column_count;
  if (is_refused(flashinfer_allocate(loader, count * sizeof(float), &values, &hold, &error))) return 1;
  int refused = 0;
  for (uint64_t first = 0; first < tensor->part_row_count && !refused; first += 16) {
    uint64_t rest = tensor->part_row_count - first;
    flashinfer_rows rows = {number, 0, first, rest < 16 ? rest : 16};
    flashinfer_piece piece = FLASHINFER_PIECE_INIT;
    refused = is_refused(flashinfer_load_rows(loader, &rows, 1, -1, &piece, &error));
    if (refused) break;
    EXPECT(!flashinfer_dequantise(loader, number, piece.data, piece.byte_count, 0, rows.row_count,
                                  (float *)values + first * tensor->column_count, count, &error));
    EXPECT(!flashinfer_release(piece.hold, &error));
  }
  EXPECT(!flashinfer_release(hold, &error));
  return refused;
}

static int load_some(uint64_t number, const flashinfer_tensor *tensor, uint64_t count, int converts) {
  int refused = 0;
  flashinfer_rows *rows = calloc(count, sizeof *rows);
  EXPECT(rows);
  for (uint64_t i = 0; i < count; i++)
    rows[i] = (flashinfer_rows){number, 0, (i * 7919 + number) % tensor->part_row_count, 1};
  if (!converts) {
    refused = load(rows, count);
  } else {
    for (uint64_t i = 0; i < count; i++) refused |= stream(rows + i, tensor);
  }
  free(rows);
  return refused;
}

static int load_into(uint64_t number, uint64_t count) {
  flashinfer_rows rows = {number, 0, 0, count};
  flashinfer_piece piece = FLASHINFER_PIECE_INIT;
  uint64_t needed;
  void *memory;
  EXPECT(!flashinfer_load_byte_count(loader, &rows, 1, &needed, &error) && needed <= CALLER_BYTES);
  EXPECT(!posix_memalign(&memory, 4096, needed));
  int refused = is_refused(flashinfer_load_into(loader, &rows, 1, memory, needed, &piece, &error));
  if (!refused) touch(&piece);
  free(memory);
  return refused;
}

/* Loads tensors and keeps them until there is room for no other. */
static int hold_all(void) {
  uint64_t tensors, count = 0;
  EXPECT(!flashinfer_tensor_count(loader, &tensors, &error));
  flashinfer_hold *holds = calloc(tensors, sizeof *holds);
  EXPECT(holds);
  for (; count < tensors; count++) {
    flashinfer_part part = {count, 0};
    flashinfer_piece piece = FLASHINFER_PIECE_INIT;
    if (is_refused(flashinfer_load(loader, &part, 1, -1, &piece, &error))) break;
    touch(&piece);
    holds[count] = piece.hold;
  }
  for (uint64_t i = 0; i < count; i++) EXPECT(!flashinfer_release(holds[i], &error));
  free(holds);
  return count < tensors;
}

static int32_t ignore(void *context, const char *text, size_t count) {
  (void)context, (void)text, (void)count;
  return 0;
}

static int generate(const char *model, uint64_t count) {
  close_loader();
  flashinfer_generator_options options = FLASHINFER_GENERATOR_OPTIONS_INIT;
  options.ram = budget;
  flashinfer_generator *generator;
  EXPECT(!flashinfer_generator_open(model, &options, &generator, &error));
  flashinfer_generation generation = FLASHINFER_GENERATION_INIT;
  generation.maximum_tokens = count;
  EXPECT(!flashinfer_generate(generator, "the", &generation, ignore, NULL, NULL, &error));
  EXPECT(!flashinfer_generator_close(generator, &error));
  return 0;
}

static int use(const char *kind, uint64_t number, uint64_t count, const char *model) {
  if (!strcmp(kind, "generate")) return generate(model, count);
  open_loader();
  flashinfer_tensor tensor = FLASHINFER_TENSOR_INIT;
  EXPECT(!flashinfer_tensor_at(loader, number, &tensor, &error));
  const flashinfer_rows whole = {number, 0, 0, FLASHINFER_ALL_ROWS};
  if (!strcmp(kind, "load")) return load(&whole, 1);
  if (!strcmp(kind, "floats")) return load_floats(number, &tensor);
  if (!strcmp(kind, "pieces")) return stream(&whole, NULL);
  if (!strcmp(kind, "pieceFloats")) return stream(&whole, &tensor);
  if (!strcmp(kind, "rows")) return load_some(number, &tensor, count, 0);
  if (!strcmp(kind, "rowFloats")) return load_some(number, &tensor, count, 1);
  if (!strcmp(kind, "into")) return load_into(number, count);
  if (!strcmp(kind, "prefetch"))
    return is_refused(flashinfer_prefetch_rows(loader, &whole, 1, &error)) || load(&whole, 1);
  if (!strcmp(kind, "abandon")) {
    int refused = is_refused(flashinfer_prefetch_rows(loader, &whole, 1, &error));
    EXPECT(!flashinfer_cancel_prefetch_rows(loader, &whole, 1, &error));
    return refused;
  }
  EXPECT(!strcmp(kind, "hold"));
  return hold_all();
}

int main(int argc, char **argv) {
  EXPECT(argc > 4);
  file = argv[1];
  budget = strtoull(argv[3], NULL, 10);
  int refused = 0;
  for (int i = 4; i < argc; i++) {
    char kind[32];
    unsigned long long number, count;
    EXPECT(sscanf(argv[i], "%31[^:]:%llu:%llu", kind, &number, &count) == 3);
    refused += use(kind, number, count, argv[2]);
  }
  close_loader();
  printf("%llu %llu %d\n", (unsigned long long)peak(), (unsigned long long)budget, refused);
  return 0;
}
