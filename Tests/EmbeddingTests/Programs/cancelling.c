/* Cancellations from another thread at any moment are never lost and never hit another generation.
 * usage: cancelling MODEL */
#include "expect.h"
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

struct attempt {
  flashinfer_generator *generator;
  uint64_t ticket;
  long delay_nanoseconds;
};

static void *cancel_ticket(void *argument) {
  struct attempt *attempt = argument;
  struct timespec delay = {0, attempt->delay_nanoseconds};
  nanosleep(&delay, NULL);
  flashinfer_cancel_ticket(attempt->generator, attempt->ticket, NULL);
  return NULL;
}

static void *cancel_any(void *argument) {
  struct attempt *attempt = argument;
  struct timespec delay = {0, attempt->delay_nanoseconds};
  nanosleep(&delay, NULL);
  flashinfer_cancel(attempt->generator, NULL);
  return NULL;
}

static int32_t forever(void *context, const char *text, size_t count) {
  (void)context, (void)text, (void)count;
  return 0;
}

static flashinfer_status generate(flashinfer_generator *generator, uint64_t ticket, uint64_t count,
                                  flashinfer_result *result) {
  flashinfer_generation generation = FLASHINFER_GENERATION_INIT;
  generation.maximum_tokens = count;
  generation.ticket = ticket;
  return flashinfer_generate(generator, "a b c", &generation, forever, NULL, result, &error);
}

static uint64_t state = 42;
static uint64_t next(uint64_t bound) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (state >> 33) % bound;
}

int main(int argc, char **argv) {
  EXPECT(argc == 2);
  flashinfer_generator_options options = FLASHINFER_GENERATOR_OPTIONS_INIT;
  options.context_length = 64;
  options.thread_count = 1;
  flashinfer_generator *generator;
  EXPECT(!flashinfer_generator_open(argv[1], &options, &generator, &error));
  flashinfer_result result = FLASHINFER_RESULT_INIT;

  /* Before: the next generation ends, and only that. */
  EXPECT(!flashinfer_cancel(generator, &error));
  EXPECT_ERROR(generate(generator, 0, 4, &result), FLASHINFER_CANCELLED);
  EXPECT(result.finish_reason == FLASHINFER_FINISH_CANCELLED && result.answer_tokens == 0 && result.prompt_tokens > 0);
  EXPECT(!generate(generator, 0, 4, &result) && result.answer_tokens <= 4);

  /* With a ticket: those up to it, however early; not those after it, however late. */
  EXPECT(!flashinfer_cancel_ticket(generator, 7, &error));
  EXPECT_ERROR(generate(generator, 6, 4, &result), FLASHINFER_CANCELLED);
  EXPECT_ERROR(generate(generator, 7, 4, &result), FLASHINFER_CANCELLED);
  EXPECT(!generate(generator, 8, 4, &result) && !flashinfer_cancel_ticket(generator, 8, &error));
  EXPECT(!generate(generator, 9, 4, &result) && !generate(generator, 0, 4, &result));
  EXPECT_ERROR(flashinfer_cancel_ticket(generator, 0, &error), FLASHINFER_INVALID);
  /* A smaller ticket that comes later takes nothing back. */
  EXPECT(!flashinfer_cancel_ticket(generator, 10, &error) && !flashinfer_cancel_ticket(generator, 3, &error));
  EXPECT_ERROR(generate(generator, 10, 4, &result), FLASHINFER_CANCELLED);

  /* Seeded races: a generation that could go on for ever is cancelled at about the moment it begins or ends. It
   * ends in every case, and a short one with the next ticket is whole. */
  uint64_t ticket = 12;
  for (int i = 0; i < 300; i++) {
    struct attempt attempt = {generator, ticket, (long)next(i % 3 ? 3000 : 3000000)};
    pthread_t thread;
    EXPECT(!pthread_create(&thread, NULL, cancel_ticket, &attempt));
    struct timespec delay = {0, (long)next(3000)};
    if (i % 2) nanosleep(&delay, NULL);
    flashinfer_status status = generate(generator, ticket, 50, &result);
    EXPECT(status == FLASHINFER_CANCELLED || status == FLASHINFER_OK);
    EXPECT((status == FLASHINFER_CANCELLED) == (result.finish_reason == FLASHINFER_FINISH_CANCELLED));
    if (i % 5) pthread_join(thread, NULL);
    EXPECT(!generate(generator, ticket + 1, 1, &result));
    if (i % 5 == 0) pthread_join(thread, NULL);
    ticket += 2;
  }

  /* Without one: each cancellation ends exactly one generation, the one under way or the next. */
  for (int i = 0; i < 100; i++) {
    struct attempt attempt = {generator, 0, (long)next(i % 3 ? 3000 : 2000000)};
    pthread_t thread;
    EXPECT(!pthread_create(&thread, NULL, cancel_any, &attempt));
    flashinfer_status status = generate(generator, 0, 50, &result);
    pthread_join(thread, NULL);
    if (status == FLASHINFER_OK) status = generate(generator, 0, 50, &result);
    EXPECT(status == FLASHINFER_CANCELLED);
    EXPECT(!generate(generator, 0, 1, &result));
  }
  EXPECT(!flashinfer_generator_close(generator, &error));
  puts("ok");
  return 0;
}
