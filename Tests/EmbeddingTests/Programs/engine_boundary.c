/* Engines and sequences with NULL, foreign and closed handles, and any numbers: errors, and the program goes on.
 * usage: engine_boundary MODEL */
#include "expect.h"
#include <math.h>
#include <stdint.h>

/* All calls with an engine that is none. */
static void check_no_engine(flashinfer_engine *engine, flashinfer_status expected) {
  flashinfer_engine_plan plan = FLASHINFER_ENGINE_PLAN_INIT;
  flashinfer_sequence_options options = FLASHINFER_SEQUENCE_OPTIONS_INIT;
  flashinfer_sequence *sequence = NULL;
  size_t count = 0;
  int32_t descriptor = -1;
  char line[8];
  uint64_t hashes[2];
  options.prompt = "a";
  EXPECT_ERROR(flashinfer_engine_get_plan(engine, &plan, &error), expected);
  EXPECT_ERROR(flashinfer_engine_next_warning(engine, line, sizeof line, &error), expected);
  EXPECT_ERROR(flashinfer_engine_poll(engine, 0, &sequence, 1, &count, &error), expected);
  EXPECT_ERROR(flashinfer_engine_fd(engine, &descriptor, &error), expected);
  EXPECT_ERROR(flashinfer_engine_prompt_hashes(engine, &options, hashes, 2, &count, &error), expected);
  EXPECT_ERROR(flashinfer_engine_stored_hashes(engine, hashes, 2, &count, &error), expected);
  EXPECT_ERROR(flashinfer_sequence_open(engine, &options, &sequence, &error), expected);
  EXPECT_ERROR(flashinfer_engine_close(engine, &error), expected);
  EXPECT(!sequence && descriptor == -1);
}

static void check_no_sequence(flashinfer_sequence *sequence, flashinfer_status expected) {
  flashinfer_event event = FLASHINFER_EVENT_INIT;
  flashinfer_sequence *other = NULL;
  const int32_t token = 1;
  EXPECT_ERROR(flashinfer_sequence_next(sequence, 0, &event, &error), expected);
  EXPECT_ERROR(flashinfer_sequence_append(sequence, &token, 1, 1, &error), expected);
  EXPECT_ERROR(flashinfer_sequence_append_text(sequence, "a", 1, &error), expected);
  EXPECT_ERROR(flashinfer_sequence_fork(sequence, 0, 0, &other, &error), expected);
  EXPECT_ERROR(flashinfer_sequence_truncate(sequence, 0, &error), expected);
  EXPECT_ERROR(flashinfer_sequence_cancel(sequence, &error), expected);
  EXPECT_ERROR(flashinfer_sequence_close(sequence, &error), expected);
  EXPECT(!other);
}

static uint64_t state = 0x9E3779B97F4A7C15;
static uint64_t any(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  const uint64_t edges[] = {0, 1, 2, 63, 64, 65, INT32_MAX, UINT32_MAX, INT64_MAX, (uint64_t)INT64_MAX + 1, UINT64_MAX};
  return state % 3 ? edges[state / 3 % (sizeof edges / sizeof *edges)] : state;
}
static float any_float(void) {
  const float values[] = {0, -1, 0.5f, 1, 1e30f, -1e30f, INFINITY, -INFINITY, NAN};
  return values[any() % (sizeof values / sizeof *values)];
}

/* Hashes are written as far as there is room for them, and counted. */
static void check_hashes(flashinfer_engine *engine) {
  flashinfer_sequence_options options = FLASHINFER_SEQUENCE_OPTIONS_INIT;
  static int32_t tokens[300];
  uint64_t hashes[3] = {0, 0, 7};
  size_t count = 9;
  options.tokens = tokens;
  options.token_count = 300;
  EXPECT(!flashinfer_engine_prompt_hashes(engine, &options, hashes, 3, &count, &error) && count == 2);
  EXPECT(hashes[0] != hashes[1] && hashes[2] == 7);
  const uint64_t second = hashes[1];
  hashes[1] = 5;
  EXPECT(!flashinfer_engine_prompt_hashes(engine, &options, hashes, 1, &count, &error) && count == 2 && hashes[1] == 5);
  EXPECT(!flashinfer_engine_prompt_hashes(engine, &options, NULL, 0, &count, &error) && count == 2);
  tokens[255] = 1;
  EXPECT(!flashinfer_engine_prompt_hashes(engine, &options, hashes, 2, &count, &error) && hashes[1] != second);
  EXPECT_ERROR(flashinfer_engine_prompt_hashes(engine, &options, NULL, 1, &count, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_engine_prompt_hashes(engine, &options, hashes, 2, NULL, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_engine_prompt_hashes(engine, NULL, hashes, 2, &count, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_engine_prompt_hashes(engine, &options, hashes, SIZE_MAX, &count, &error), FLASHINFER_INVALID);
  /* The engine has no store. */
  EXPECT(!flashinfer_engine_stored_hashes(engine, hashes, 2, &count, &error) && count == 0);
  EXPECT_ERROR(flashinfer_engine_stored_hashes(engine, hashes, 2, NULL, &error), FLASHINFER_INVALID);
}

/* Options of any numbers open a sequence or say why not. */
static void check_options(flashinfer_engine *engine) {
  static const int32_t tokens[] = {1, -1, 5, INT32_MAX, INT32_MIN, 7};
  int opened = 0;
  for (int i = 0; i < 3000; i++) {
    flashinfer_sequence_options options = FLASHINFER_SEQUENCE_OPTIONS_INIT;
    const char *stops[] = {"a", "", NULL};
    options.tokens = tokens;
    options.token_count = any() % 7;
    options.maximum_tokens = any() % 8 ? any() % 8 : any();
    if (any() % 2) options.temperature = any_float();
    if (any() % 2) options.top_p = any_float();
    if (any() % 2) options.min_p = any_float();
    if (any() % 2) options.repetition_penalty = any_float();
    options.top_k = (uint32_t)any();
    options.is_seeded = (uint32_t)any();
    options.seed = any();
    options.stream = (uint32_t)any();
    options.stops = stops;
    options.stop_count = any() % 4;
    options.log_probability_count = (uint32_t)(any() % 2 ? any() % 66 : any());
    options.queues = any() % 2;
    options.context_limit = any() % 2 ? any() : 0;
    options.ignores_store = (uint32_t)any();
    flashinfer_sequence *sequence = NULL;
    if (flashinfer_sequence_open(engine, &options, &sequence, &error)) {
      EXPECT(error.message[0] && !sequence);
      continue;
    }
    opened++;
    flashinfer_event event = FLASHINFER_EVENT_INIT;
    flashinfer_sequence *fork = NULL;
    if (any() % 4) while (!flashinfer_sequence_next(sequence, 2000, &event, &error)) {}
    flashinfer_sequence_truncate(sequence, any() % 3 ? any() % 9 : any(), &error);
    flashinfer_sequence_fork(sequence, any(), (uint32_t)any(), &fork, &error);
    flashinfer_sequence_append(sequence, tokens, any() % 7, any() % 4, &error);
    if (fork) EXPECT(!flashinfer_sequence_close(fork, &error));
    if (any() % 2) flashinfer_sequence_cancel(sequence, &error);
    EXPECT(!flashinfer_sequence_close(sequence, &error));
    check_no_sequence(sequence, FLASHINFER_CLOSED);
  }
  EXPECT(opened > 20);
}

int main(int argc, char **argv) {
  EXPECT(argc == 2);
  int local;
  void *const foreign[] = {(void *)1, (void *)(uintptr_t)-1, (void *)(uintptr_t)INT64_MAX, &local, (void *)main};
  for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
    check_no_engine(foreign[i], FLASHINFER_CLOSED);
    check_no_sequence(foreign[i], FLASHINFER_CLOSED);
  }
  check_no_engine(NULL, FLASHINFER_INVALID);
  check_no_sequence(NULL, FLASHINFER_INVALID);
  flashinfer_engine *engine = NULL;
  flashinfer_engine_options options = FLASHINFER_ENGINE_OPTIONS_INIT;
  for (int i = 0; i < 200; i++) {
    options.ram = any();
    options.context_length = any();
    options.thread_count = (uint32_t)any();
    options.sequence_count = (uint32_t)any();
    options.caller_bytes = any();
    options.kv_type = (const char *[]){NULL, "q4", "", "\xff"}[any() % 4];
    options.kv_policy = (const char *[]){NULL, "full", "window=0", "\xff", "top=0"}[any() % 5];
    /* What is possible, but not worth the time. */
    if (options.thread_count > 8 && options.thread_count <= 256) continue;
    if (flashinfer_engine_open(argv[1], &options, &engine, &error)) {
      EXPECT(error.message[0]);
    } else {
      EXPECT(!flashinfer_engine_close(engine, &error));
    }
  }
  options = (flashinfer_engine_options)FLASHINFER_ENGINE_OPTIONS_INIT;
  options.context_length = 64;
  options.sequence_count = 2;
  EXPECT(!flashinfer_engine_open(argv[1], &options, &engine, &error));
  check_no_sequence((flashinfer_sequence *)engine, FLASHINFER_CLOSED);
  check_hashes(engine);
  check_options(engine);
  EXPECT(!flashinfer_engine_close(engine, &error));
  check_no_engine(engine, FLASHINFER_CLOSED);
  puts("ok");
  return 0;
}
