/* Every function with NULL, foreign and closed handles, impossible numbers and text that is none: errors, and the
 * program goes on. usage: boundary FILE MODEL; FILE as for interface.c */
#include "expect.h"
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

static int32_t ignore(void *context, const char *text, size_t count) {
  (void)context, (void)text, (void)count;
  return 0;
}

/* All calls with a loader that is none. */
static void check_no_loader(flashinfer_loader *loader, flashinfer_status expected) {
  flashinfer_plan plan = {.size = sizeof plan};
  flashinfer_tensor tensor = {.size = sizeof tensor};
  flashinfer_piece piece = FLASHINFER_PIECE_INIT;
  flashinfer_statistics statistics = {.size = sizeof statistics};
  flashinfer_part part = {0, 0};
  uint64_t number = 0;
  size_t count = 0;
  float value = 0;
  EXPECT_ERROR(flashinfer_close(loader, &error), expected);
  EXPECT_ERROR(flashinfer_get_plan(loader, &plan, &error), expected);
  EXPECT_ERROR(flashinfer_tensor_count(loader, &number, &error), expected);
  EXPECT_ERROR(flashinfer_tensor_at(loader, 0, &tensor, &error), expected);
  EXPECT_ERROR(flashinfer_find(loader, "first", &number, &error), expected);
  EXPECT_ERROR(flashinfer_stream(loader, NULL, 0, &error), expected);
  EXPECT_ERROR(flashinfer_next(loader, 0, &piece, &error), expected);
  EXPECT_ERROR(flashinfer_prefetch(loader, &part, 1, &error), expected);
  EXPECT_ERROR(flashinfer_load(loader, &part, 1, 0, &piece, &error), expected);
  EXPECT_ERROR(flashinfer_bundle(loader, 0, 0, &part, 1, &count, &error), expected);
  EXPECT_ERROR(flashinfer_dequantise(loader, 0, &value, 4, 0, 1, &value, 1, &error), expected);
  EXPECT_ERROR(flashinfer_get_statistics(loader, &statistics, &error), expected);
  EXPECT_ERROR(flashinfer_cancel(loader, &error), expected);
}

static void check_no_generator(flashinfer_generator *generator, flashinfer_status expected) {
  flashinfer_generation generation = FLASHINFER_GENERATION_INIT;
  flashinfer_message message = {sizeof message, FLASHINFER_ROLE_USER, 0, "a"};
  EXPECT_ERROR(flashinfer_generator_close(generator, &error), expected);
  EXPECT_ERROR(flashinfer_generate(generator, "a", &generation, ignore, NULL, NULL, &error), expected);
  EXPECT_ERROR(flashinfer_chat(generator, &message, 1, &generation, ignore, NULL, NULL, &error), expected);
  const char *json = "[{\"role\":\"user\",\"content\":\"a\"}]";
  EXPECT_ERROR(flashinfer_chat_json(generator, json, &generation, ignore, NULL, NULL, &error), expected);
  EXPECT_ERROR(flashinfer_cancel_ticket(generator, 1, &error), expected);
}

static void check_arguments(const char *path, flashinfer_loader *loader) {
  flashinfer_loader *other = NULL;
  flashinfer_part part = {0, 0};
  flashinfer_piece piece = FLASHINFER_PIECE_INIT;
  size_t count = 0;
  uint64_t number = 0;
  float values[28];
  const uint64_t numbers[] = {INT64_MAX, (uint64_t)INT64_MAX + 1, UINT64_MAX - 1, UINT64_MAX};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    uint64_t huge = numbers[i];
    flashinfer_options options = FLASHINFER_OPTIONS_INIT;
    options.caller_bytes = huge;
    flashinfer_status status = flashinfer_open(path, &options, &other, &error);
    EXPECT(status == FLASHINFER_INVALID || status == FLASHINFER_NO_MEMORY);
    options = (flashinfer_options)FLASHINFER_OPTIONS_INIT;
    options.read_bytes = huge;
    EXPECT_ERROR(flashinfer_open(path, &options, &other, &error), FLASHINFER_INVALID);
    options.read_bytes = 0;
    options.backend = (uint32_t)huge | 4;
    EXPECT_ERROR(flashinfer_open(path, &options, &other, &error), FLASHINFER_INVALID);
    options.backend = 0;
    options.queue_depth = (uint32_t)huge | 1024;
    if (options.queue_depth > 1024) {
      EXPECT_ERROR(flashinfer_open(path, &options, &other, &error), FLASHINFER_INVALID);
      EXPECT(strstr(error.message, "queue_depth"));
    }
    options.queue_depth = 1024;
    options.piece_bytes = options.ram = huge;
    if (!flashinfer_open(path, &options, &other, &error)) EXPECT(!flashinfer_close(other, &error));

    flashinfer_part parts[2] = {{huge, 0}, {0, huge}};
    for (int j = 0; j < 2; j++) {
      status = flashinfer_stream(loader, parts + j, 1, &error);
      EXPECT(status == FLASHINFER_INVALID || status == FLASHINFER_NOT_FOUND);
      status = flashinfer_prefetch(loader, parts + j, 1, &error);
      EXPECT(status == FLASHINFER_INVALID || status == FLASHINFER_NOT_FOUND);
      status = flashinfer_load(loader, parts + j, 1, 0, &piece, &error);
      EXPECT(status == FLASHINFER_INVALID || status == FLASHINFER_NOT_FOUND);
    }
    EXPECT_ERROR(flashinfer_tensor_at(loader, huge, &(flashinfer_tensor){.size = sizeof(flashinfer_tensor)}, &error),
                 FLASHINFER_NOT_FOUND);
    status = flashinfer_bundle(loader, huge, huge, &part, huge, &count, &error);
    EXPECT(status == FLASHINFER_INVALID || status == FLASHINFER_NOT_FOUND);
    EXPECT_ERROR(flashinfer_release(huge, &error), FLASHINFER_CLOSED);
    EXPECT_ERROR(flashinfer_stream(loader, &part, huge, &error), FLASHINFER_INVALID);
    EXPECT_ERROR(flashinfer_prefetch(loader, &part, huge, &error), FLASHINFER_INVALID);
    EXPECT_ERROR(flashinfer_load(loader, &part, huge, 0, &piece, &error), FLASHINFER_INVALID);
    EXPECT_ERROR(flashinfer_dequantise(loader, huge, values, 4, 0, 1, values, 1, &error), FLASHINFER_NOT_FOUND);
    status = flashinfer_dequantise(loader, 0, values, 112, huge, 1, values, 28, &error);
    EXPECT(status == FLASHINFER_INVALID);
    status = flashinfer_dequantise(loader, 0, values, 112, 0, huge, values, 28, &error);
    EXPECT(status == FLASHINFER_INVALID);
    status = flashinfer_dequantise(loader, 0, values, huge, 0, huge / 64, values, 28, &error);
    EXPECT(status == FLASHINFER_INVALID);
  }
  EXPECT_ERROR(flashinfer_stream(loader, &part, FLASHINFER_LIST_LIMIT + 1, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_load(loader, NULL, 1, 0, &piece, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_load(loader, &part, 1, 0, NULL, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_dequantise(loader, 0, NULL, 64, 0, 1, values, 16, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_dequantise(loader, 0, values, 64, 0, 1, NULL, 16, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_tensor_count(loader, NULL, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_tensor_at(loader, 0, NULL, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_get_plan(loader, NULL, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_get_statistics(loader, NULL, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_find(loader, NULL, &number, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_find(loader, "first", NULL, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_find(loader, "\xc3\x28", &number, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_find(loader, "\xed\xa0\x80", &number, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_bundle(loader, 0, 0, &part, 1, NULL, &error), FLASHINFER_INVALID);
  EXPECT(flashinfer_next(loader, INT64_MIN, &piece, &error) == FLASHINFER_END);
  EXPECT(!flashinfer_load(loader, &part, 1, INT64_MAX, &piece, &error) && !flashinfer_release(piece.hold, &error));
}

static void check_generation(flashinfer_generator *generator) {
  flashinfer_generation good = FLASHINFER_GENERATION_INIT;
  good.maximum_tokens = 2;
  flashinfer_generation bad[13];
  for (int i = 0; i < 13; i++) bad[i] = good;
  bad[0].temperature = NAN, bad[1].temperature = INFINITY, bad[2].temperature = -1;
  bad[3].top_p = 0, bad[4].top_p = NAN, bad[5].top_p = 2;
  bad[6].maximum_tokens = 0, bad[7].maximum_tokens = UINT64_MAX, bad[8].size = 0;
  bad[9].min_p = -1, bad[10].min_p = NAN, bad[11].repetition_penalty = -1, bad[12].repetition_penalty = INFINITY;
  for (int i = 0; i < 13; i++) {
    EXPECT_ERROR(flashinfer_generate(generator, "a", &bad[i], ignore, NULL, NULL, &error), FLASHINFER_INVALID);
  }
  EXPECT_ERROR(flashinfer_generate(generator, NULL, &good, ignore, NULL, NULL, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_generate(generator, "\xff", &good, ignore, NULL, NULL, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_generate(generator, "a", NULL, ignore, NULL, NULL, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_generate(generator, "a", &good, NULL, NULL, NULL, &error), FLASHINFER_INVALID);
  good.top_k = UINT32_MAX;
  good.temperature = 3e38f;
  EXPECT(!flashinfer_generate(generator, "a", &good, ignore, NULL, NULL, &error));
  flashinfer_message message = {sizeof message, FLASHINFER_ROLE_USER, 0, "\xff"};
  EXPECT_ERROR(flashinfer_chat(generator, &message, 1, &good, ignore, NULL, NULL, &error), FLASHINFER_INVALID);
  message.text = NULL;
  EXPECT_ERROR(flashinfer_chat(generator, &message, 1, &good, ignore, NULL, NULL, &error), FLASHINFER_INVALID);
  message.text = "a";
  for (int i = 0; i < 4; i++) {
    message.role = (const uint32_t[]){0, 4, 256, UINT32_MAX}[i];
    EXPECT_ERROR(flashinfer_chat(generator, &message, 1, &good, ignore, NULL, NULL, &error), FLASHINFER_INVALID);
    size_t count = (const size_t[]){0, FLASHINFER_LIST_LIMIT + 1, SIZE_MAX / 2, SIZE_MAX}[i];
    EXPECT_ERROR(flashinfer_chat(generator, &message, count, &good, ignore, NULL, NULL, &error), FLASHINFER_INVALID);
  }
  EXPECT_ERROR(flashinfer_chat(generator, NULL, 1, &good, ignore, NULL, NULL, &error), FLASHINFER_INVALID);
  for (int i = 0; i < 8; i++) {
    const char *json = (const char *[]){NULL, "", "\xff", "[]", "[{\"role\":\"user\"}]", "{\"messages\":[1]}",
                                        "[{\"role\":\"user\",\"content\":\"a\"}", "[[[["}[i];
    EXPECT_ERROR(flashinfer_chat_json(generator, json, &good, ignore, NULL, NULL, &error), FLASHINFER_INVALID);
  }
}

static void check_generator_options(const char *path) {
  flashinfer_generator *generator;
  for (int i = 0; i < 4; i++) {
    flashinfer_generator_options options = FLASHINFER_GENERATOR_OPTIONS_INIT;
    options.thread_count = 1;
    options.ram = (const uint64_t[]){1, INT64_MAX, UINT64_MAX, 0}[i];
    options.context_length = (const uint64_t[]){0, 1, 1 << 30, UINT64_MAX}[i];
    if (!flashinfer_generator_open(path, &options, &generator, &error)) {
      EXPECT(!flashinfer_generator_close(generator, &error));
    }
    options.thread_count = UINT32_MAX;
    EXPECT_ERROR(flashinfer_generator_open(path, &options, &generator, &error), FLASHINFER_INVALID);
  }
  EXPECT_ERROR(flashinfer_generator_open(NULL, NULL, &generator, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_generator_open(path, NULL, NULL, &error), FLASHINFER_INVALID);
}

/* A sink may not use its own generator, but ask for its end. */
static int32_t meddle(void *context, const char *text, size_t count) {
  flashinfer_generation generation = FLASHINFER_GENERATION_INIT;
  flashinfer_generator *generator = context;
  EXPECT(count > 0 && text);
  EXPECT_ERROR(flashinfer_generate(generator, "a", &generation, ignore, NULL, NULL, &error), FLASHINFER_BUSY);
  EXPECT_ERROR(flashinfer_generator_close(generator, &error), FLASHINFER_BUSY);
  EXPECT(!flashinfer_cancel(generator, &error));
  return 0;
}

struct race {
  flashinfer_generator *generator;
  int good, other;
};

static void *generate(void *argument) {
  struct race *race = argument;
  flashinfer_generation generation = FLASHINFER_GENERATION_INIT;
  generation.maximum_tokens = 3;
  for (int i = 0; i < 100; i++) {
    flashinfer_status status =
        flashinfer_generate(race->generator, "a b", &generation, ignore, NULL, NULL, NULL);
    if (status == FLASHINFER_OK) race->good++;
    else if (status != FLASHINFER_BUSY) race->other++;
  }
  return NULL;
}

static void check_generator(const char *path) {
  flashinfer_generator_options options = FLASHINFER_GENERATOR_OPTIONS_INIT;
  options.context_length = 64;
  options.thread_count = 2;
  flashinfer_generator *generator;
  EXPECT(!flashinfer_generator_open(path, &options, &generator, &error));
  check_generation(generator);

  struct race races[2] = {{generator, 0, 0}, {generator, 0, 0}};
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, generate, &races[i]);
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  EXPECT(races[0].good + races[1].good > 0 && races[0].other + races[1].other == 0);

  flashinfer_generation generation = FLASHINFER_GENERATION_INIT;
  flashinfer_result result = FLASHINFER_RESULT_INIT;
  generation.is_seeded = 1, generation.seed = 9;
  flashinfer_status status = flashinfer_generate(generator, "a b c", &generation, meddle, generator, &result, &error);
  EXPECT(status == FLASHINFER_CANCELLED && result.finish_reason == FLASHINFER_FINISH_CANCELLED && result.seed == 9);
  EXPECT(!flashinfer_generate(generator, "a b c", &generation, ignore, NULL, &result, &error));

  /* A child has none of its parent's handles, and no thread of theirs to wait for. */
  pid_t child = fork();
  if (child == 0) {
    EXPECT_ERROR(flashinfer_generator_close(generator, &error), FLASHINFER_FORKED);
    EXPECT_ERROR(flashinfer_cancel(generator, &error), FLASHINFER_FORKED);
    EXPECT_ERROR(flashinfer_generate(generator, "a", &generation, ignore, NULL, NULL, &error), FLASHINFER_FORKED);
    flashinfer_generator *own;
    EXPECT(!flashinfer_generator_open(path, &options, &own, &error));
    generation.maximum_tokens = 2;
    EXPECT(!flashinfer_generate(own, "a", &generation, ignore, NULL, NULL, &error));
    EXPECT(!flashinfer_generator_close(own, &error));
    _exit(0);
  }
  int outcome = 1;
  waitpid(child, &outcome, 0);
  EXPECT(outcome == 0);
  EXPECT(!flashinfer_generator_close(generator, &error));
  check_no_generator(generator, FLASHINFER_CLOSED);
}

int main(int argc, char **argv) {
  EXPECT(argc == 3);
  int local;
  void *const foreign[] = {(void *)1, (void *)(uintptr_t)-1, (void *)(uintptr_t)INT64_MAX, &local, (void *)main};
  for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
    check_no_loader(foreign[i], FLASHINFER_CLOSED);
    check_no_generator(foreign[i], FLASHINFER_CLOSED);
  }
  check_no_loader(NULL, FLASHINFER_INVALID);
  check_no_generator(NULL, FLASHINFER_INVALID);

  flashinfer_loader *loader;
  EXPECT(!flashinfer_open(argv[1], NULL, &loader, &error));
  check_no_generator((flashinfer_generator *)loader, FLASHINFER_CLOSED);
  EXPECT(!flashinfer_stream(loader, &(flashinfer_part){0, 0}, 0, &error));
  check_arguments(argv[1], loader);
  EXPECT(!flashinfer_close(loader, &error));
  check_no_loader(loader, FLASHINFER_CLOSED);
  check_generator_options(argv[2]);
  check_generator(argv[2]);
  puts("ok");
  return 0;
}
