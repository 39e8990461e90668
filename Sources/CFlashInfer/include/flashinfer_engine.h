/*
 * FlashInfer: many sequences of one model at the same time. Part of flashinfer.h, whose rules hold here.
 */
#ifndef FLASHINFER_ENGINE_H
#define FLASHINFER_ENGINE_H

#include "flashinfer.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * An engine answers any number of sequences in shared passes over the weights, on a thread of its own. Any thread may call
 * anything with an engine or a sequence at any time, but flashinfer_sequence_next of one sequence, which is called by one
 * thread at a time. The library never calls the program: what a sequence brings is taken with flashinfer_sequence_next.
 * A sequence's tokens are those that it has alone, whatever others do.
 */
typedef struct flashinfer_engine flashinfer_engine;
typedef struct flashinfer_sequence flashinfer_sequence;

typedef struct flashinfer_engine_options {
  size_t size;
  /* As those of a generator; context_length is that of each sequence. */
  uint64_t ram;
  uint64_t context_length;
  uint32_t thread_count;
  /* Sequences that have a place at the same time, at most 1024; default 8. */
  uint32_t sequence_count;
  /* Part of the budget that the caller needs for itself, in addition to what the process holds already. */
  uint64_t caller_bytes;
  /* A folder that keeps contexts, where sequences find the keys and values of what begins as an earlier one did; NULL: none.
     What goes wrong with it is a warning. */
  const char *kv_store;
  /* Most bytes of that folder; 0: 8 GiB. */
  uint64_t kv_store_limit;
  /* How keys and values are stored: "f16" (NULL), "q8" or "q4". */
  const char *kv_type;
  /* What tokens after a prompt attend over: "full" (NULL), "window=N", "sinks=S+N", "top=1/8" or "snapkv=N". */
  const char *kv_policy;
} flashinfer_engine_options;
#define FLASHINFER_ENGINE_OPTIONS_INIT {sizeof(flashinfer_engine_options), 0, 0, 0, 0, 0, NULL, 0, NULL, NULL}

/* As flashinfer_generator_open. */
flashinfer_status flashinfer_engine_open(const char *path, const flashinfer_engine_options *options,
                                         flashinfer_engine **engine, flashinfer_error *error);

/* Cancels all sequences and returns when the engine's memory is free. Their handles are closed one by one, before or after. */
flashinfer_status flashinfer_engine_close(flashinfer_engine *engine, flashinfer_error *error);

/* Where an engine's budget goes, in bytes, and what it did so far. */
typedef struct flashinfer_engine_plan {
  size_t size;
  uint64_t budget;
  uint64_t process;
  /* Keys and values of all sequences. */
  uint64_t key_values;
  uint64_t workspace;
  /* Weights that stay in memory, and those that each pass reads. */
  uint64_t pinned;
  uint64_t streamed;
  uint64_t context_length;
  uint32_t sequence_count;
  /* Sequences that have a place, and that wait for one. */
  uint32_t open_count;
  uint32_t queued_count;
  uint32_t reserved;
  /* Passes over the weights, tokens that they read or drew, and tokens drawn. */
  uint64_t sweeps;
  uint64_t rows;
  uint64_t drawn;
  uint64_t bytes_read;
  /* Memory of keys and values that weights have at the moment, because no sequence needs it. */
  uint64_t lent;
  /* Time of all passes, and between one's logits and the next that followed at once. */
  uint64_t sweep_nanoseconds;
  uint64_t gap_nanoseconds;
} flashinfer_engine_plan;
#define FLASHINFER_ENGINE_PLAN_INIT {sizeof(flashinfer_engine_plan), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

flashinfer_status flashinfer_engine_get_plan(flashinfer_engine *engine, flashinfer_engine_plan *plan,
                                             flashinfer_error *error);

/*
 * Takes the oldest of the lines that people may want to read, such as that the store cannot be used: UTF-8, cut where it is
 * longer, NUL-terminated. FLASHINFER_END where there is none.
 */
flashinfer_status flashinfer_engine_next_warning(flashinfer_engine *engine, char *text, size_t capacity,
                                                 flashinfer_error *error);

/*
 * The sequences that have events to be taken, at most `capacity`, and their number; waits for the first, at most
 * timeout_milliseconds (-1: as long as it takes). FLASHINFER_TIMEOUT where there is none in time.
 */
flashinfer_status flashinfer_engine_poll(flashinfer_engine *engine, int64_t timeout_milliseconds,
                                         flashinfer_sequence **sequences, size_t capacity, size_t *count,
                                         flashinfer_error *error);

/*
 * A descriptor that is readable when a sequence may have events, for poll, select and event loops: read its eight bytes,
 * then take all events of the sequences that flashinfer_engine_poll names. The engine's, valid until it is closed.
 */
flashinfer_status flashinfer_engine_fd(flashinfer_engine *engine, int32_t *descriptor, flashinfer_error *error);

/* What a sequence begins with, and how it is continued; use the initialiser. All memory is only read during the call. */
typedef struct flashinfer_sequence_options {
  size_t size;
  /* One of them: a text to be continued, in which control tokens may be spelt out; a conversation in JSON as
     flashinfer_chat_json takes it; token ids. */
  const char *prompt;
  const char *json;
  const int32_t *tokens;
  size_t token_count;
  /* Most tokens of the answer; 0: the prompt is read, and nothing is drawn. */
  uint64_t maximum_tokens;
  /* As those of a generation. */
  float temperature;
  float top_p;
  uint32_t top_k;
  uint32_t is_seeded;
  uint64_t seed;
  float min_p;
  float repetition_penalty;
  /* Tells answers with the same seed apart. */
  uint32_t stream;
  /* Whether tokens that end an answer are not to. */
  uint32_t ignores_end;
  /* Texts that end an answer, which are not part of it. */
  const char *const *stops;
  size_t stop_count;
  /* Most probable tokens to be told with each token, at most 64. */
  uint32_t log_probability_count;
  /* Whether it waits where no place is free; otherwise it is refused with FLASHINFER_NO_MEMORY. */
  uint32_t queues;
  /* Most tokens of the context, of all turns together; 0: the engine's context_length. */
  uint64_t context_limit;
  /* Whether it neither begins with what the engine's kv_store has nor leaves its context there. */
  uint32_t ignores_store;
  uint32_t reserved;
} flashinfer_sequence_options;
#define FLASHINFER_SEQUENCE_OPTIONS_INIT                                                                         \
  {sizeof(flashinfer_sequence_options), NULL, NULL, NULL, 0, 512, 0.7f, 0.95f, 40, 0, 0, 0.05f, 1.0f, 0, 0, NULL, \
   0, 0, 0, 0, 0, 0}

/* Begins a sequence. *sequence: the caller's, to be given to flashinfer_sequence_close. */
flashinfer_status flashinfer_sequence_open(flashinfer_engine *engine, const flashinfer_sequence_options *options,
                                           flashinfer_sequence **sequence, flashinfer_error *error);

/*
 * Numbers for the beginnings of a prompt, each up to a multiple of 128 tokens, by which it is told which engine's store has
 * most of it: the same in every engine of models with the same tokens. Writes at most `capacity`, and how many there are.
 * options: only what a sequence begins with counts.
 */
flashinfer_status flashinfer_engine_prompt_hashes(flashinfer_engine *engine, const flashinfer_sequence_options *options,
                                                  uint64_t *hashes, size_t capacity, size_t *count,
                                                  flashinfer_error *error);

/*
 * Those numbers of all that the engine's kv_store has for its model now, in no order; reads the tokens of all its entries.
 */
flashinfer_status flashinfer_engine_stored_hashes(flashinfer_engine *engine, uint64_t *hashes, size_t capacity,
                                                  size_t *count, flashinfer_error *error);

typedef int32_t flashinfer_event_kind;
enum {
  /* It waits for a place, after `ahead` others. */
  FLASHINFER_EVENT_QUEUED = 1,
  /* `done` of `total` tokens of the context are read. */
  FLASHINFER_EVENT_READING = 2,
  /* A token of the answer. */
  FLASHINFER_EVENT_TOKEN = 3,
  /* Text for which the event before had no room. */
  FLASHINFER_EVENT_TEXT = 4,
  /* The turn is over. */
  FLASHINFER_EVENT_FINISHED = 5
};

/* A token that could follow. */
typedef struct flashinfer_probability {
  int32_t token;
  uint32_t reserved;
  /* Natural logarithm of its probability. */
  double log_probability;
} flashinfer_probability;

/* What happened to a sequence. The caller sets size, and text and probabilities with their capacities. */
typedef struct flashinfer_event {
  size_t size;
  flashinfer_event_kind kind;
  /* The token and its position in the context. */
  int32_t token;
  uint64_t position;
  /* The caller's memory for text that has become certain: whole UTF-8 characters where they fit, not
     NUL-terminated. What does not fit comes with the next events, and all of it before the turn's end. May be NULL
     where text_capacity is 0: there is no text then. */
  char *text;
  size_t text_capacity;
  size_t text_byte_count;
  /* The caller's memory for what could have followed, most probable first, then the token itself if it is none of these. */
  flashinfer_probability *probabilities;
  size_t probability_capacity;
  size_t probability_count;
  uint64_t ahead;
  uint64_t done;
  uint64_t total;
  /* How the turn ended; stop: the text that it came to, cut where it is longer, otherwise empty. */
  flashinfer_finish_reason finish_reason;
  uint32_t reserved;
  char stop[256];
  /* Tokens of the context before the answer, those of them that were there before the turn, and those of the answer. */
  uint64_t prompt_tokens;
  uint64_t reused_tokens;
  uint64_t answer_tokens;
  uint64_t seed;
} flashinfer_event;
#define FLASHINFER_EVENT_INIT \
  {sizeof(flashinfer_event), 0, 0, 0, NULL, 0, 0, NULL, 0, 0, 0, 0, 0, 0, 0, {0}, 0, 0, 0, 0}

/*
 * Waits for the next event, at most timeout_milliseconds (-1: as long as it takes). FLASHINFER_END where the turn is over
 * and everything was taken. What the sequence failed with is the status; it is over then.
 */
flashinfer_status flashinfer_sequence_next(flashinfer_sequence *sequence, int64_t timeout_milliseconds,
                                           flashinfer_event *event, flashinfer_error *error);

/*
 * Begins the next turn, once the end of the one before was taken: adds tokens to the context and continues it. The
 * context keeps what was read and the tokens of answers; a token that ends an answer is not among them.
 * tokens: may be NULL where token_count is 0: the answer goes on then.
 */
flashinfer_status flashinfer_sequence_append(flashinfer_sequence *sequence, const int32_t *tokens,
                                             size_t token_count, uint64_t maximum_tokens, flashinfer_error *error);

/* As flashinfer_sequence_append, of a text in which control tokens may be spelt out. */
flashinfer_status flashinfer_sequence_append_text(flashinfer_sequence *sequence, const char *text,
                                                  uint64_t maximum_tokens, flashinfer_error *error);

/*
 * Another sequence with the first `position` tokens of the context (FLASHINFER_ALL_POSITIONS: all), between turns; its
 * first turn begins with flashinfer_sequence_append. stream: as in flashinfer_sequence_options.
 */
#define FLASHINFER_ALL_POSITIONS UINT64_MAX
flashinfer_status flashinfer_sequence_fork(flashinfer_sequence *sequence, uint64_t position, uint32_t stream,
                                           flashinfer_sequence **fork, flashinfer_error *error);

/* Cuts the context after its first `position` tokens, between turns. */
flashinfer_status flashinfer_sequence_truncate(flashinfer_sequence *sequence, uint64_t position,
                                               flashinfer_error *error);

/* Ends a sequence: the end of its turn can be taken at once, and its memory goes to others. */
flashinfer_status flashinfer_sequence_cancel(flashinfer_sequence *sequence, flashinfer_error *error);

/* Cancels a sequence and forgets its handle. */
flashinfer_status flashinfer_sequence_close(flashinfer_sequence *sequence, flashinfer_error *error);

#ifdef __cplusplus
}
#endif

#endif
