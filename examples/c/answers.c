/* Answers several prompts at the same time, in one loop over what comes.
 * cc -O2 answers.c $(pkg-config --cflags --libs flashinfer) -o answers && ./answers MODEL PROMPT... */
#include <flashinfer.h>
#include <stdio.h>
#include <stdlib.h>

static flashinfer_error error = FLASHINFER_ERROR_INIT;

static void check(flashinfer_status status) {
  if (!status) return;
  fprintf(stderr, "%s\n", error.message);
  exit(1);
}

/* Prints what came of one sequence; whether its turn is over. */
static int print_events(flashinfer_sequence *sequence, int number) {
  char text[256];
  flashinfer_event event = FLASHINFER_EVENT_INIT;
  event.text = text;
  event.text_capacity = sizeof text;
  for (;;) {
    flashinfer_status status = flashinfer_sequence_next(sequence, 0, &event, &error);
    if (status == FLASHINFER_TIMEOUT) return 0;
    check(status);
    if (event.text_byte_count) printf("%d: %.*s\n", number, (int)event.text_byte_count, text);
    if (event.kind != FLASHINFER_EVENT_FINISHED) continue;
    printf("%d: %llu tokens\n", number, (unsigned long long)event.answer_tokens);
    return 1;
  }
}

int main(int argc, char **argv) {
  if (argc < 3) return fprintf(stderr, "usage: answers MODEL PROMPT...\n"), 64;
  flashinfer_engine_options options = FLASHINFER_ENGINE_OPTIONS_INIT;
  options.ram = 600 << 20;
  options.context_length = 256;
  options.sequence_count = 4;
  flashinfer_engine *engine;
  check(flashinfer_engine_open(argv[1], &options, &engine, &error));
  const int count = argc - 2;
  flashinfer_sequence **sequences = calloc((size_t)count, sizeof *sequences);
  if (!sequences) return 1;
  for (int i = 0; i < count; i++) {
    flashinfer_sequence_options asked = FLASHINFER_SEQUENCE_OPTIONS_INIT;
    asked.prompt = argv[i + 2];
    asked.maximum_tokens = 24;
    asked.is_seeded = 1;
    asked.queues = 1; /* More than have a place wait for one. */
    check(flashinfer_sequence_open(engine, &asked, &sequences[i], &error));
  }
  for (int left = count; left > 0;) {
    flashinfer_sequence *ready[4];
    size_t ready_count;
    check(flashinfer_engine_poll(engine, -1, ready, 4, &ready_count, &error));
    for (size_t i = 0; i < ready_count; i++) {
      int number = 0;
      while (sequences[number] != ready[i]) number++;
      if (!print_events(ready[i], number + 1)) continue;
      /* Gives its place to the next. */
      check(flashinfer_sequence_close(ready[i], &error));
      sequences[number] = NULL;
      left--;
    }
  }
  free(sequences);
  check(flashinfer_engine_close(engine, &error));
  return 0;
}
