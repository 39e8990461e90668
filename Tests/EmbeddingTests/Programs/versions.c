/* Programs that were compiled with an older or a newer header than the library's.
 * usage: versions FILE MODEL; FILE as for interface.c */
#include "expect.h"
#include <stdint.h>

/* Structures as version 1 of the header had them: members may have been appended to the library's since. */
struct error_1 { size_t size; int32_t status; char message[1012]; };
struct options_1 { size_t size; uint64_t numbers[4]; uint32_t queue_depth, backend; };
struct plan_1 { size_t size; uint64_t numbers[7]; uint32_t queue_depth, reserved; };
struct tensor_1 { size_t size; const char *name, *type; uint64_t counts[3], shape[8]; uint32_t numbers[6]; };
struct piece_1 { size_t size; uint64_t hold; const void *data; uint64_t numbers[4]; uint32_t is_last, reserved; };
struct statistics_1 { size_t size; uint64_t numbers[5]; double mean_queue_depth; };
struct generator_options_1 { size_t size; uint64_t numbers[2]; uint32_t thread_count, reserved; };
struct generation_1 { size_t size; uint64_t maximum_tokens; float temperature, top_p; uint32_t top_k, is_seeded; uint64_t seed; };
/* And as version 2 had those that came with it. */
struct result_2 { size_t size; uint64_t numbers[3]; int32_t finish_reason; uint32_t reserved; char warning[256]; };
struct message_2 { size_t size; uint32_t role, reserved; const char *text; };

/* What the library must not write, after each structure. */
struct guard { unsigned char bytes[64]; };
static const unsigned char GUARD = 0xA5;

/* A place for a structure of `size` bytes, filled with what nothing is initialised to, and a guard after it. */
static void *place(size_t size) {
  unsigned char *memory = malloc(size + sizeof(struct guard));
  EXPECT(memory);
  memset(memory, GUARD, size + sizeof(struct guard));
  memcpy(memory, &size, sizeof size);
  return memory;
}

static void *zeroed(size_t size) {
  unsigned char *memory = place(size);
  memset(memory + sizeof size, 0, size - sizeof size);
  return memory;
}

static int is_untouched(const void *structure, size_t size) {
  const unsigned char *memory = structure;
  for (size_t i = size; i < size + sizeof(struct guard); i++) {
    if (memory[i] != GUARD) return 0;
  }
  return 1;
}

static int is_zero(const void *structure, size_t from, size_t to) {
  const unsigned char *memory = structure;
  for (size_t i = from; i < to; i++) {
    if (memory[i]) return 0;
  }
  return 1;
}

static int32_t ignore(void *context, const char *text, size_t count) {
  (void)context, (void)text, (void)count;
  return 0;
}

/* Members that the caller's version lacks are neither read nor written. */
static void check_errors(size_t size) {
  flashinfer_loader *loader;
  struct error_1 *failure = place(size);
  EXPECT(flashinfer_open("/nowhere", NULL, &loader, (flashinfer_error *)failure) == FLASHINFER_NO_FILE);
  EXPECT(failure->status == FLASHINFER_NO_FILE && strstr(failure->message, "/nowhere"));
  EXPECT(failure->size == size && is_untouched(failure, size));
  if (size > sizeof(flashinfer_error)) EXPECT(is_zero(failure, sizeof(flashinfer_error), size));
  free(failure);
}

static void check_loader(const char *path, size_t more) {
  size_t sizes[] = {sizeof(struct options_1) + more, sizeof(struct plan_1) + more, sizeof(struct tensor_1) + more,
                    sizeof(struct piece_1) + more, sizeof(struct statistics_1) + more};
  struct options_1 *options = zeroed(sizes[0]);
  options->numbers[0] = 300 << 20;
  flashinfer_loader *loader;
  EXPECT(!flashinfer_open(path, (void *)options, &loader, &error));
  struct plan_1 *plan = place(sizes[1]);
  EXPECT(!flashinfer_get_plan(loader, (void *)plan, &error) && plan->numbers[0] == 300 << 20);
  struct tensor_1 *tensor = place(sizes[2]);
  EXPECT(!flashinfer_tensor_at(loader, 1, (void *)tensor, &error) && !strcmp(tensor->name, "second"));
  EXPECT(tensor->shape[1] == 4);

  /* Elements of arrays have the caller's size. */
  unsigned char *pieces = place(2 * sizes[3]);
  memcpy(pieces, &sizes[3], sizeof sizes[3]);
  flashinfer_part parts[2] = {{1, 0}, {0, 0}};
  EXPECT(!flashinfer_load(loader, parts, 2, -1, (void *)pieces, &error));
  struct piece_1 *first = (void *)pieces, *second = (void *)(pieces + sizes[3]);
  EXPECT(first->size == sizes[3] && first->numbers[0] == 48 && ((const float *)first->data)[0] == 100);
  EXPECT(second->size == sizes[3] && second->numbers[0] == 64 && ((const float *)second->data)[1] == 1);
  EXPECT(second->is_last == 1 && is_untouched(pieces, 2 * sizes[3]));
  EXPECT(is_zero(pieces, sizeof(flashinfer_piece), sizes[3]));
  EXPECT(!flashinfer_release(first->hold, &error));
  EXPECT(!flashinfer_stream(loader, parts, 1, &error) && !flashinfer_next(loader, -1, (void *)first, &error));
  EXPECT(first->numbers[0] == 48 && !flashinfer_release(first->hold, &error));

  struct statistics_1 *statistics = place(sizes[4]);
  EXPECT(!flashinfer_get_statistics(loader, (void *)statistics, &error) && statistics->numbers[0] >= 112);
  EXPECT(is_untouched(plan, sizes[1]) && is_untouched(tensor, sizes[2]) && is_untouched(statistics, sizes[4]));
  EXPECT(is_zero(plan, sizeof(flashinfer_plan), sizes[1]) && is_zero(tensor, sizeof(flashinfer_tensor), sizes[2]));
  EXPECT(!flashinfer_close(loader, &error));

  /* A member that is set and that the library does not know is not ignored. */
  if (sizes[0] > sizeof(flashinfer_options)) {
    ((unsigned char *)options)[sizes[0] - 1] = 1;
    EXPECT_ERROR(flashinfer_open(path, (void *)options, &loader, &error), FLASHINFER_INVALID);
    EXPECT(strstr(error.message, "options sets a member") && error.remedy[0]);
  }
  free(options), free(plan), free(tensor), free(pieces), free(statistics);
}

static void check_generator(const char *path, size_t more) {
  size_t size = sizeof(struct generator_options_1) + more;
  struct generator_options_1 *options = zeroed(size);
  options->numbers[1] = 64;
  options->thread_count = 1;
  flashinfer_generator *generator;
  EXPECT(!flashinfer_generator_open(path, (void *)options, &generator, &error));
  struct generation_1 *generation = zeroed(sizeof *generation + more);
  generation->maximum_tokens = 3;
  generation->top_p = 1;
  struct result_2 *result = place(sizeof *result + more);
  EXPECT(!flashinfer_generate(generator, "a b", (void *)generation, ignore, NULL, (void *)result, &error));
  EXPECT(result->finish_reason > 0 && result->numbers[0] > 0 && is_untouched(result, sizeof *result + more));
  EXPECT(is_zero(result, sizeof(flashinfer_result), sizeof *result + more));

  /* The tiny model has no template; its messages are read before that is known. */
  size_t stride = sizeof(struct message_2) + more;
  unsigned char *messages = zeroed(2 * stride);
  for (size_t i = 0; i < 2; i++) {
    struct message_2 *message = (void *)(messages + i * stride);
    message->size = stride;
    message->role = 1 + (uint32_t)i;
    message->text = "a";
  }
  EXPECT_ERROR(flashinfer_chat(generator, (void *)messages, 2, (void *)generation, ignore, NULL, NULL, &error),
               FLASHINFER_INVALID);
  EXPECT(strstr(error.message, "no chat template"));
  EXPECT(!flashinfer_generator_close(generator, &error));
  free(options), free(generation), free(result), free(messages);
}

/* Sizes that no version has. Nothing beyond the size itself may be looked at. */
static void check_sizes(const char *path) {
  const size_t wrong[] = {0, 1, 8, 1023, FLASHINFER_SIZE_LIMIT + 1, (size_t)1 << 40, SIZE_MAX / 2 + 1, SIZE_MAX};
  flashinfer_loader *loader, *other;
  EXPECT(!flashinfer_open(path, NULL, &loader, &error));
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    flashinfer_error failure = FLASHINFER_ERROR_INIT;
    failure.size = wrong[i];
    uint64_t count = 77;
    EXPECT(flashinfer_tensor_count(loader, &count, &failure) == FLASHINFER_INVALID && count == 77);
    EXPECT(failure.message[0] == 0);
    if (wrong[i] == 1023) continue; /* Long enough for the others. */
    flashinfer_options options = {.size = wrong[i]};
    flashinfer_plan plan = {.size = wrong[i]};
    flashinfer_tensor tensor = {.size = wrong[i]};
    flashinfer_piece piece = {.size = wrong[i]};
    flashinfer_statistics statistics = {.size = wrong[i]};
    flashinfer_part part = {0, 0};
    EXPECT_ERROR(flashinfer_open(path, &options, &other, &error), FLASHINFER_INVALID);
    EXPECT(strstr(error.message, "options->size is"));
    EXPECT_ERROR(flashinfer_get_plan(loader, &plan, &error), FLASHINFER_INVALID);
    EXPECT_ERROR(flashinfer_tensor_at(loader, 0, &tensor, &error), FLASHINFER_INVALID);
    EXPECT_ERROR(flashinfer_next(loader, 0, &piece, &error), FLASHINFER_INVALID);
    EXPECT_ERROR(flashinfer_load(loader, &part, 1, -1, &piece, &error), FLASHINFER_INVALID);
    EXPECT_ERROR(flashinfer_get_statistics(loader, &statistics, &error), FLASHINFER_INVALID);
  }
  EXPECT(!flashinfer_close(loader, &error));
}

int main(int argc, char **argv) {
  EXPECT(argc == 3);
  const size_t more[] = {0, 8, 4000};
  for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
    check_errors(sizeof(struct error_1) + more[i]);
    check_errors(sizeof(flashinfer_error) + more[i]);
    check_loader(argv[1], more[i]);
    check_generator(argv[2], more[i]);
  }
  check_sizes(argv[1]);
  puts("ok");
  return 0;
}
