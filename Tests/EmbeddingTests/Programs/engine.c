/* Many sequences of one engine, through the C interface.
 * usage: engine MODEL */
#include "expect.h"
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

static flashinfer_engine *engine;

static flashinfer_sequence_options asking(const int32_t *tokens, size_t count, uint64_t limit) {
  flashinfer_sequence_options options = FLASHINFER_SEQUENCE_OPTIONS_INIT;
  options.tokens = tokens;
  options.token_count = count;
  options.maximum_tokens = limit;
  options.is_seeded = 1;
  options.seed = 7;
  options.ignores_end = 1;
  return options;
}

/* What a turn brings, taken in pieces of `capacity` bytes. */
struct turn {
  char text[8192];
  size_t length;
  int32_t tokens[512];
  size_t count;
  flashinfer_event end;
};

static void take(flashinfer_sequence *sequence, size_t capacity, struct turn *turn) {
  char text[64];
  flashinfer_probability probabilities[4];
  memset(turn, 0, sizeof *turn);
  for (;;) {
    flashinfer_event event = FLASHINFER_EVENT_INIT;
    event.text = text;
    event.text_capacity = capacity;
    event.probabilities = probabilities;
    event.probability_capacity = 4;
    flashinfer_status status = flashinfer_sequence_next(sequence, -1, &event, &error);
    if (status == FLASHINFER_END) return;
    EXPECT(status == FLASHINFER_OK && event.text_byte_count <= capacity);
    memcpy(turn->text + turn->length, text, event.text_byte_count);
    turn->length += event.text_byte_count;
    if (event.kind == FLASHINFER_EVENT_TOKEN) turn->tokens[turn->count++] = event.token;
    if (event.kind == FLASHINFER_EVENT_FINISHED) turn->end = event;
  }
}

static const int32_t prompt[] = {10, 11, 12, 13, 14};

static void check_turns(void) {
  static struct turn whole, first, second, again;
  flashinfer_sequence *sequence, *fork;
  flashinfer_sequence_options options = asking(prompt, 5, 20);
  EXPECT(!flashinfer_sequence_open(engine, &options, &sequence, &error));
  take(sequence, 64, &whole);
  EXPECT(whole.count == 20 && whole.end.finish_reason == FLASHINFER_FINISH_LENGTH);
  EXPECT(whole.end.prompt_tokens == 5 && whole.end.answer_tokens == 20 && whole.end.seed == 7);
  EXPECT(flashinfer_sequence_next(sequence, 0, &(flashinfer_event)FLASHINFER_EVENT_INIT, &error) == FLASHINFER_END);

  /* In two turns, in small pieces of text, after a cut, and as a fork: the same tokens. */
  EXPECT(!flashinfer_sequence_truncate(sequence, 5, &error));
  EXPECT(!flashinfer_sequence_fork(sequence, FLASHINFER_ALL_POSITIONS, 0, &fork, &error));
  EXPECT(!flashinfer_sequence_append(sequence, NULL, 0, 8, &error));
  take(sequence, 1, &first);
  EXPECT(!flashinfer_sequence_append(sequence, NULL, 0, 12, &error));
  take(sequence, 5, &second);
  EXPECT(first.count == 8 && second.count == 12);
  EXPECT(!memcmp(first.tokens, whole.tokens, 8 * sizeof *whole.tokens));
  EXPECT(!memcmp(second.tokens, whole.tokens + 8, 12 * sizeof *whole.tokens));
  EXPECT(second.end.prompt_tokens == 13 && second.end.reused_tokens == 12);
  EXPECT(!flashinfer_sequence_append(fork, NULL, 0, 20, &error));
  take(fork, 3, &again);
  EXPECT(again.count == 20 && !memcmp(again.tokens, whole.tokens, sizeof whole.tokens));
  EXPECT(again.length == whole.length && !memcmp(again.text, whole.text, whole.length));
  EXPECT(!flashinfer_sequence_append_text(fork, "and so on", 3, &error));
  take(fork, 64, &again);
  EXPECT(again.count == 3 && again.end.prompt_tokens > 25);

  /* Refused: turns under way, positions that are not there, lists that are none. */
  EXPECT(!flashinfer_sequence_append(fork, prompt, 5, 30, &error));
  EXPECT_ERROR(flashinfer_sequence_append(fork, prompt, 5, 1, &error), FLASHINFER_BUSY);
  EXPECT(!flashinfer_sequence_cancel(fork, &error) && !flashinfer_sequence_cancel(fork, &error));
  take(fork, 64, &again);
  /* A tiny model may have been faster. */
  EXPECT(again.end.finish_reason == FLASHINFER_FINISH_CANCELLED || again.count == 30 || again.end.finish_reason == FLASHINFER_FINISH_CONTEXT);
  EXPECT_ERROR(flashinfer_sequence_append(fork, prompt, 5, 1, &error), FLASHINFER_CLOSED);
  EXPECT_ERROR(flashinfer_sequence_truncate(sequence, 999, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_sequence_append(sequence, NULL, 3, 1, &error), FLASHINFER_INVALID);
  EXPECT(!flashinfer_sequence_close(fork, &error) && !flashinfer_sequence_close(sequence, &error));
  EXPECT_ERROR(flashinfer_sequence_cancel(sequence, &error), FLASHINFER_CLOSED);
}

static void check_options(void) {
  static struct turn turn, cut;
  flashinfer_sequence *sequence;
  flashinfer_sequence_options options = asking(prompt, 5, 20);
  EXPECT(!flashinfer_sequence_open(engine, &options, &sequence, &error));
  take(sequence, 64, &turn);
  EXPECT(!flashinfer_sequence_close(sequence, &error));
  /* A stop string from the middle of the answer. */
  char stop[3] = {0};
  memcpy(stop, turn.text + turn.length / 2, 2);
  if (!((stop[0] | stop[1]) & 0x80)) {
    const char *stops[] = {"never", stop};
    options.stops = stops;
    options.stop_count = 2;
    EXPECT(!flashinfer_sequence_open(engine, &options, &sequence, &error));
    take(sequence, 64, &cut);
    EXPECT(cut.end.finish_reason == FLASHINFER_FINISH_STOP && !strcmp(cut.end.stop, stop));
    EXPECT(cut.length < turn.length && !memcmp(cut.text, turn.text, cut.length));
    EXPECT(!flashinfer_sequence_close(sequence, &error));
  }
  options.prompt = "a";
  EXPECT_ERROR(flashinfer_sequence_open(engine, &options, &sequence, &error), FLASHINFER_INVALID);
  options = asking(NULL, 5, 20);
  EXPECT_ERROR(flashinfer_sequence_open(engine, &options, &sequence, &error), FLASHINFER_INVALID);
  options = asking(prompt, SIZE_MAX, 20);
  EXPECT_ERROR(flashinfer_sequence_open(engine, &options, &sequence, &error), FLASHINFER_INVALID);
  options = asking(prompt, 5, 20);
  options.top_p = 7;
  EXPECT_ERROR(flashinfer_sequence_open(engine, &options, &sequence, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_sequence_open(NULL, &options, &sequence, &error), FLASHINFER_INVALID);
  EXPECT_ERROR(flashinfer_sequence_open((flashinfer_engine *)77, &options, &sequence, &error), FLASHINFER_CLOSED);
}

/* Programs of later headers: their structures are longer. */
static void check_sizes(void) {
  struct { flashinfer_sequence_options known; uint64_t more[4]; } options = {asking(prompt, 5, 3), {0}};
  struct { flashinfer_event known; uint64_t more[4]; } event = {FLASHINFER_EVENT_INIT, {9, 9, 9, 9}};
  struct { flashinfer_engine_plan known; uint64_t more[4]; } plan = {FLASHINFER_ENGINE_PLAN_INIT, {9, 9, 9, 9}};
  flashinfer_sequence *sequence;
  options.known.size = sizeof options;
  EXPECT(!flashinfer_sequence_open(engine, &options.known, &sequence, &error));
  event.known.size = sizeof event;
  EXPECT(!flashinfer_sequence_next(sequence, -1, &event.known, &error) && event.known.size == sizeof event);
  EXPECT(!event.more[0] && !event.more[3] && event.known.kind == FLASHINFER_EVENT_READING && event.known.total == 5);
  plan.known.size = sizeof plan;
  EXPECT(!flashinfer_engine_get_plan(engine, &plan.known, &error) && !plan.more[3]);
  EXPECT(plan.known.sweeps > 0 && plan.known.sweep_nanoseconds > 0 && plan.known.lent <= plan.known.key_values);
  EXPECT(plan.known.sequence_count == 4 && plan.known.context_length == 64 && plan.known.budget == 1ull << 36);
  options.more[3] = 1;
  EXPECT_ERROR(flashinfer_sequence_open(engine, &options.known, &sequence, &error), FLASHINFER_INVALID);
  event.known.size = sizeof event.known - 1;
  EXPECT_ERROR(flashinfer_sequence_next(sequence, 0, &event.known, &error), FLASHINFER_INVALID);
  plan.known.size = 8;
  EXPECT_ERROR(flashinfer_engine_get_plan(engine, &plan.known, &error), FLASHINFER_INVALID);
  EXPECT(!flashinfer_sequence_close(sequence, &error));
}

static void *answer(void *argument) {
  static const int32_t tokens[] = {1, 2, 3};
  struct turn *turn = argument;
  for (int i = 0; i < 10; i++) {
    flashinfer_sequence *sequence;
    flashinfer_sequence_options options = asking(tokens, 3, 10);
    options.queues = 1;
    if (flashinfer_sequence_open(engine, &options, &sequence, NULL)) return NULL;
    if (i % 3 == 1) flashinfer_sequence_cancel(sequence, NULL);
    take(sequence, 16, turn);
    flashinfer_sequence_close(sequence, NULL);
  }
  return turn;
}

static void check_threads(void) {
  static struct turn turns[6];
  pthread_t threads[6];
  for (int i = 0; i < 6; i++) EXPECT(!pthread_create(&threads[i], NULL, answer, &turns[i]));
  for (int i = 0; i < 6; i++) {
    void *result;
    EXPECT(!pthread_join(threads[i], &result) && result);
    EXPECT(turns[i].count == 10 && !memcmp(turns[i].tokens, turns[0].tokens, 10 * sizeof *turns[0].tokens));
  }
}

/* One loop that waits for a descriptor serves all sequences. */
static void check_loop(void) {
  int32_t descriptor;
  EXPECT(!flashinfer_engine_fd(engine, &descriptor, &error) && descriptor >= 0);
  flashinfer_sequence *sequences[3], *ready[3];
  for (int i = 0; i < 3; i++) {
    flashinfer_sequence_options options = asking(prompt, 5, 12);
    EXPECT(!flashinfer_sequence_open(engine, &options, &sequences[i], &error));
  }
  int ended = 0;
  while (ended < 3) {
    struct pollfd wait = {descriptor, POLLIN, 0};
    uint64_t events;
    EXPECT(poll(&wait, 1, 10000) == 1 && read(descriptor, &events, sizeof events) == sizeof events);
    size_t count;
    while (!flashinfer_engine_poll(engine, 0, ready, 3, &count, NULL)) {
      EXPECT(count > 0 && count <= 3);
      for (size_t i = 0; i < count; i++) {
        flashinfer_event event = FLASHINFER_EVENT_INIT;
        while (!flashinfer_sequence_next(ready[i], 0, &event, NULL)) {
          if (event.kind == FLASHINFER_EVENT_FINISHED) ended++;
        }
      }
    }
  }
  size_t count;
  EXPECT_ERROR(flashinfer_engine_poll(engine, 1, ready, 3, &count, &error), FLASHINFER_TIMEOUT);
  for (int i = 0; i < 3; i++) EXPECT(!flashinfer_sequence_close(sequences[i], &error));
}

/* A context that one engine leaves is where another goes on. */
static void check_store(const char *model) {
  char folder[] = "/tmp/flashinfer-test-XXXXXX", line[200];
  static int32_t tokens[300];
  static struct turn first, second;
  EXPECT(mkdtemp(folder));
  for (int i = 0; i < 300; i++) tokens[i] = (i * 37 + 11) % 250;
  flashinfer_engine_options options = FLASHINFER_ENGINE_OPTIONS_INIT;
  options.context_length = 400;
  options.sequence_count = 2;
  options.kv_store = folder;
  options.kv_type = "q5";
  EXPECT_ERROR(flashinfer_engine_open(model, &options, &engine, &error), FLASHINFER_INVALID);
  options.kv_type = "q8";
  options.kv_policy = "top=2";
  EXPECT_ERROR(flashinfer_engine_open(model, &options, &engine, &error), FLASHINFER_INVALID);
  options.kv_policy = "full";
  for (int round = 0; round < 4; round++) {
    struct turn *turn = round ? &second : &first;
    flashinfer_sequence *sequence;
    flashinfer_sequence_options asked = asking(tokens, 300, 10);
    asked.ignores_store = round == 2;
    if (round == 3) options.kv_store = "/dev/null/nowhere";
    EXPECT(!flashinfer_engine_open(model, &options, &engine, &error));
    EXPECT(!flashinfer_sequence_open(engine, &asked, &sequence, &error));
    take(sequence, 64, turn);
    EXPECT(turn->count == 10 && !memcmp(turn->tokens, first.tokens, 10 * sizeof *first.tokens));
    EXPECT(turn->end.reused_tokens == (round == 1 ? 300 : 0));
    if (round == 3) EXPECT(!flashinfer_engine_next_warning(engine, line, sizeof line, &error) && strstr(line, "not kept"));
    EXPECT(flashinfer_engine_next_warning(engine, line, sizeof line, &error) == FLASHINFER_END);
    EXPECT_ERROR(flashinfer_engine_next_warning(engine, line, 0, &error), FLASHINFER_INVALID);
    EXPECT(!flashinfer_sequence_close(sequence, &error) && !flashinfer_engine_close(engine, &error));
  }
  /* A program of an earlier header. */
  options.size = offsetof(flashinfer_engine_options, kv_store);
  EXPECT(!flashinfer_engine_open(model, &options, &engine, &error) && !flashinfer_engine_close(engine, &error));
  char command[64];
  snprintf(command, sizeof command, "rm -r %s", folder);
  EXPECT(!system(command));
}

int main(int argc, char **argv) {
  EXPECT(argc == 2);
  check_store(argv[1]);
  flashinfer_engine_options options = FLASHINFER_ENGINE_OPTIONS_INIT;
  options.ram = 1ull << 36;
  options.context_length = 64;
  options.thread_count = 2;
  options.sequence_count = 4;
  EXPECT_ERROR(flashinfer_engine_open("/nowhere", &options, &engine, &error), FLASHINFER_NO_FILE);
  EXPECT(!flashinfer_engine_open(argv[1], &options, &engine, &error));
  check_turns();
  check_options();
  check_sizes();
  check_threads();
  check_loop();
  flashinfer_sequence *sequence;
  flashinfer_sequence_options long_one = asking(prompt, 5, 59);
  EXPECT(!flashinfer_sequence_open(engine, &long_one, &sequence, &error));
  EXPECT(!flashinfer_engine_close(engine, &error));
  static struct turn turn;
  take(sequence, 64, &turn);
  EXPECT(turn.end.finish_reason == FLASHINFER_FINISH_CANCELLED || turn.count == 59);
  EXPECT_ERROR(flashinfer_sequence_append(sequence, prompt, 1, 1, &error), FLASHINFER_CLOSED);
  EXPECT(!flashinfer_sequence_close(sequence, &error));
  EXPECT_ERROR(flashinfer_engine_close(engine, &error), FLASHINFER_CLOSED);
  puts("ok");
  return 0;
}
