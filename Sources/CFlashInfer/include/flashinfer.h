/*
 * FlashInfer: tensors of files larger than memory, as fast as the drive gives them, within a budget.
 *
 * Every function returns a status and, where `error` is not NULL, fills in a message; nothing here ends the
 * host program, whatever it is given, as long as pointers point to what their types say.
 *
 * Handles (flashinfer_loader *, flashinfer_generator *, flashinfer_engine *, flashinfer_sequence *, holds) are numbers,
 * not addresses: they are looked up,
 * so one that was closed, belongs to another kind or was opened before a fork is an error.
 *
 * Threads: different handles may be used by different threads at the same time. One loader or generator is
 * used by one thread at a time; a second one is refused with FLASHINFER_BUSY. Any thread may call
 * flashinfer_cancel, flashinfer_cancel_ticket, flashinfer_release and the functions without a handle at any time. Engines
 * and sequences are used by any threads.
 *
 * Fork: a child cannot use handles that its parent opened (FLASHINFER_FORKED); it opens its own.
 *
 * Structures begin with their size, which the caller sets before each call (use the initialisers). Later
 * versions only append members, and a program and a library of different versions understand each other:
 * what a program's version lacks counts as zero, the default of every member that is appended; what the
 * library's version lacks must be zero if the library reads it (FLASHINFER_INVALID otherwise) and becomes
 * zero if it is filled in. In an array all structures have the first one's size. A size below that of the
 * structure's first version, or above FLASHINFER_SIZE_LIMIT, is FLASHINFER_INVALID. Members that a call fills
 * in need no other initialisation.
 *
 * Paths are the system's bytes, which need not be UTF-8; all other text is UTF-8.
 */
#ifndef FLASHINFER_H
#define FLASHINFER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header. */
#define FLASHINFER_VERSION "0.2.0"
/* Increased when a function changes, and with it the soname (libflashinfer.so.2); new functions and new members of
 * structures do not change it. */
#define FLASHINFER_ABI_VERSION 2u
#define FLASHINFER_SIZE_LIMIT 16384

/* The version of the loaded library; compatible if it equals FLASHINFER_ABI_VERSION. */
uint32_t flashinfer_abi_version(void);

/* The version of the loaded library, such as "0.2.0"; static. */
const char *flashinfer_version(void);

typedef int32_t flashinfer_status;
enum {
  FLASHINFER_OK = 0,
  /* No piece is left in the stream. */
  FLASHINFER_END = 1,
  /* Nothing came within the time given; the same call may be made again. */
  FLASHINFER_TIMEOUT = 2,
  /* An argument is NULL, out of range, or a structure's size is not known. */
  FLASHINFER_INVALID = 3,
  /* No such file. */
  FLASHINFER_NO_FILE = 4,
  /* The file is foreign, damaged, truncated or not supported. */
  FLASHINFER_BAD_DATA = 5,
  /* The drive or the system failed. */
  FLASHINFER_IO = 6,
  /* The budget, or what is left of it, is too small; the message says what would be enough. */
  FLASHINFER_NO_MEMORY = 7,
  /* flashinfer_cancel ended it. */
  FLASHINFER_CANCELLED = 8,
  /* The handle was closed, or never was one. */
  FLASHINFER_CLOSED = 9,
  /* Another thread is in a call with this handle. */
  FLASHINFER_BUSY = 10,
  /* The handle was opened before this process was forked. */
  FLASHINFER_FORKED = 11,
  /* The file has no such tensor, part or expert. */
  FLASHINFER_NOT_FOUND = 12,
  /* Something else failed; the message says what. */
  FLASHINFER_FAILED = 13
};

/*
 * What went wrong, in the caller's memory. Filled in where a function returns FLASHINFER_TIMEOUT or above; a
 * function that is given one of a wrong size does nothing and returns FLASHINFER_INVALID. Text ends with NUL
 * and is cut where it is longer.
 */
typedef struct flashinfer_error {
  size_t size;
  flashinfer_status status;
  /* For people; bytes of paths that are no UTF-8 are written as \xff. */
  char message[1012];
  /* The system's error number (errno), where the system refused something; otherwise 0. */
  int32_t system_error;
  uint32_t reserved;
  /* Byte of the file where what is wrong begins; -1 if there is no such place. */
  int64_t offset;
  /* The file at fault, in the system's bytes; otherwise empty. */
  char path[1024];
  /* What to do about it, if that is known; otherwise empty. */
  char remedy[256];
} flashinfer_error;
#define FLASHINFER_ERROR_INIT {sizeof(flashinfer_error), 0, {0}, 0, 0, 0, {0}, {0}}

/* ---------------------------------------------------------------- Loader */

typedef struct flashinfer_loader flashinfer_loader;

/* How to open a file; zero means the default of every member but size. */
typedef struct flashinfer_options {
  size_t size;
  /* Bound on the process's peak resident set from now on, in bytes; default: 80 % of what is free. */
  uint64_t ram;
  /* Part of it that the caller needs for itself, in addition to what the process holds already. */
  uint64_t caller_bytes;
  /* Bytes of one read, a multiple of 4096; default 1 MiB. */
  uint64_t read_bytes;
  /* Longer tensors are streamed in pieces of whole rows of at most so many bytes; default 8 MiB. */
  uint64_t piece_bytes;
  /* Reads in flight, at most 1024; default 32. */
  uint32_t queue_depth;
  /* 0 automatic, 1 io_uring, 2 pread, 3 mmap. */
  uint32_t backend;
  /* Length of the ring that streams go through; what the budget leaves beside it is for tensors that are loaded.
     Default: as it serves both, at most 64 MiB; raised to what streaming needs. */
  uint64_t stream_bytes;
} flashinfer_options;
#define FLASHINFER_OPTIONS_INIT {sizeof(flashinfer_options), 0, 0, 0, 0, 0, 0, 0}

/*
 * Opens a GGUF file, flash image or safetensors file, or a folder of safetensors files. Any member of a split GGUF
 * model opens all of them.
 *
 * path: NUL-terminated, only read during the call. options: may be NULL. *loader: the caller's, to be given
 * to flashinfer_close; untouched on failure.
 */
flashinfer_status flashinfer_open(const char *path, const flashinfer_options *options,
                                  flashinfer_loader **loader, flashinfer_error *error);

/*
 * Ends a loader. Bytes of holds stay valid until each is released; the loader's strings do not.
 */
flashinfer_status flashinfer_close(flashinfer_loader *loader, flashinfer_error *error);

/* Where the budget goes, in bytes. */
typedef struct flashinfer_plan {
  size_t size;
  uint64_t budget;
  /* What the process held at opening, with a margin. */
  uint64_t process;
  uint64_t caller;
  /* The ring that streams go through. */
  uint64_t stream;
  /* For tensors that are loaded or prefetched. */
  uint64_t held;
  uint64_t piece;
  uint64_t read;
  uint32_t queue_depth;
  uint32_t reserved;
} flashinfer_plan;
#define FLASHINFER_PLAN_INIT {sizeof(flashinfer_plan), 0, 0, 0, 0, 0, 0, 0, 0, 0}

flashinfer_status flashinfer_get_plan(flashinfer_loader *loader, flashinfer_plan *plan,
                                      flashinfer_error *error);

#define FLASHINFER_DIMENSION_LIMIT 8

/* One tensor. */
typedef struct flashinfer_tensor {
  size_t size;
  /* UTF-8, ends with NUL; the loader's, valid until it is closed. */
  const char *name;
  /* "F32", "BF16", "I64", "Q4_K", ...; static. */
  const char *type;
  /* Bytes of all parts. */
  uint64_t byte_count;
  uint64_t part_byte_count;
  /* Matrices of equal shape stacked in the tensor, as experts are; 1 for a plain one. */
  uint64_t part_count;
  /* Outermost first; a tensor of more than eight dimensions has its outer ones multiplied. */
  uint64_t shape[FLASHINFER_DIMENSION_LIMIT];
  uint32_t dimension_count;
  /* 0: one row after the other; 1: sixteen rows interleaved (section 5 of format.md, which is installed too). */
  uint32_t layout;
  /* Elements and bytes of one block; 1 element where the type is not quantised. */
  uint32_t block_element_count;
  uint32_t block_byte_count;
  /* Whether flashinfer_dequantise knows the type. */
  uint32_t is_weight;
  /* Rows that belong together in the file: 1, or 16 interleaved ones; their bytes are unit_byte_count. */
  uint32_t unit_row_count;
  uint64_t unit_byte_count;
  /* Elements of a row, and rows of each part. */
  uint64_t column_count;
  uint64_t part_row_count;
  /* Where the bytes of part 0 begin: in which file, see flashinfer_file_at, and at which byte of it (of a striped
     image: of the image that its members are together). Part i begins i * part_stride bytes later. */
  uint64_t file;
  uint64_t file_offset;
  uint64_t part_stride;
} flashinfer_tensor;
#define FLASHINFER_TENSOR_INIT \
  {sizeof(flashinfer_tensor), NULL, NULL, 0, 0, 0, {0}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

flashinfer_status flashinfer_tensor_count(flashinfer_loader *loader, uint64_t *count,
                                          flashinfer_error *error);

/* Describes tensor number `index`, in the order of the file's header. */
flashinfer_status flashinfer_tensor_at(flashinfer_loader *loader, uint64_t index,
                                       flashinfer_tensor *tensor, flashinfer_error *error);

/* Finds a tensor's number by its name. */
flashinfer_status flashinfer_find(flashinfer_loader *loader, const char *name, uint64_t *index,
                                  flashinfer_error *error);

/*
 * The path of a file that tensors lie in: number 0, or more in a folder. Writes it with its NUL where `capacity`
 * bytes are enough, and its length without NUL to *byte_count. path: may be NULL where capacity is 0.
 * FLASHINFER_NOT_FOUND after the last.
 */
flashinfer_status flashinfer_file_at(flashinfer_loader *loader, uint64_t file, char *path, size_t capacity,
                                     size_t *byte_count, flashinfer_error *error);

/* What a file says under one key: any of a GGUF file's, or a text of a safetensors file's __metadata__. */
typedef struct flashinfer_metadata {
  size_t size;
  /* UTF-8, ends with NUL; the loader's, valid until it is closed. */
  const char *key;
  /* Of the value, or of an array's elements: "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64",
     "int64", "float32", "float64", "bool" or "string"; static. */
  const char *type;
  /* Elements of an array; 1 for a plain value. */
  uint64_t count;
  /* Bytes of the value, for flashinfer_metadata_read. */
  uint64_t byte_count;
  uint32_t is_array;
  uint32_t reserved;
  /* Which file says so; keys of a folder's files may be the same. */
  uint64_t file;
} flashinfer_metadata;
#define FLASHINFER_METADATA_INIT {sizeof(flashinfer_metadata), NULL, NULL, 0, 0, 0, 0, 0}

flashinfer_status flashinfer_metadata_count(flashinfer_loader *loader, uint64_t *count, flashinfer_error *error);

/* Describes entry number `index`, in the order of the file's header. */
flashinfer_status flashinfer_metadata_at(flashinfer_loader *loader, uint64_t index,
                                         flashinfer_metadata *metadata, flashinfer_error *error);

/* Finds the number of the first entry with this key. */
flashinfer_status flashinfer_metadata_find(flashinfer_loader *loader, const char *key, uint64_t *index,
                                           flashinfer_error *error);

/*
 * Reads a value from the file: byte_count bytes, little-endian. A text is its UTF-8 without NUL; in an array of
 * texts each has its length (uint64_t) before it. values: room for `capacity` bytes; FLASHINFER_INVALID where
 * the value is longer.
 */
flashinfer_status flashinfer_metadata_read(flashinfer_loader *loader, uint64_t index, void *values,
                                           size_t capacity, flashinfer_error *error);

/* A part of a tensor: one matrix of a stacked tensor; part 0 is all of a plain one. It never grows. */
typedef struct flashinfer_part {
  uint64_t tensor;
  uint64_t part;
} flashinfer_part;
#define FLASHINFER_LIST_LIMIT 16777216

/*
 * Rows of a part. Interleaved rows come in the whole groups of sixteen that they lie in; a piece says which rows
 * it is. It never grows.
 */
typedef struct flashinfer_rows {
  uint64_t tensor;
  uint64_t part;
  uint64_t first_row;
  /* FLASHINFER_ALL_ROWS: to the end of the part. */
  uint64_t row_count;
} flashinfer_rows;
#define FLASHINFER_ALL_ROWS UINT64_MAX

/* Identifies memory that the library lends; 0 is none. */
typedef uint64_t flashinfer_hold;

/* Bytes of a tensor in memory, lent until `hold` is released. */
typedef struct flashinfer_piece {
  size_t size;
  flashinfer_hold hold;
  /* Aligned as in the file: images 4096, GGUF 32, safetensors often not even to an element. */
  const void *data;
  uint64_t byte_count;
  uint64_t tensor;
  uint64_t part;
  /* Bytes of the part before these. */
  uint64_t byte_offset;
  /* Whether the part, or what was asked for of it, ends with these. */
  uint32_t is_last;
  uint32_t reserved;
  /* Rows of the part that lie whole in these bytes. Where a row is longer than a piece: none, from the row that
     the bytes belong to. */
  uint64_t first_row;
  uint64_t row_count;
} flashinfer_piece;
#define FLASHINFER_PIECE_INIT {sizeof(flashinfer_piece), 0, NULL, 0, 0, 0, 0, 0, 0, 0, 0}

/*
 * Begins to stream `count` parts in their order, and ends the stream under way; parts == NULL: all, as they
 * lie in the file. parts: only read during the call. Lists have at most FLASHINFER_LIST_LIMIT parts.
 * FLASHINFER_CANCELLED where a cancellation ended the wait for reads of the stream before; no stream has begun.
 */
flashinfer_status flashinfer_stream(flashinfer_loader *loader, const flashinfer_part *parts, size_t count,
                                    flashinfer_error *error);

/* As flashinfer_stream, of rows. rows is not NULL. */
flashinfer_status flashinfer_stream_rows(flashinfer_loader *loader, const flashinfer_rows *rows, size_t count,
                                         flashinfer_error *error);

/*
 * Waits for the next piece, at most timeout_milliseconds (-1: as long as it takes). FLASHINFER_END after
 * the last. The piece's memory is read into again once its hold is released: release each before long,
 * because those in use leave the drive less room.
 */
flashinfer_status flashinfer_next(flashinfer_loader *loader, int64_t timeout_milliseconds,
                                  flashinfer_piece *piece, flashinfer_error *error);

/* Gives lent memory back; its bytes must not be touched afterwards. From any thread, also after close. */
flashinfer_status flashinfer_release(flashinfer_hold hold, flashinfer_error *error);

/*
 * Begins to read parts into memory of their own, to be taken with flashinfer_load of the same list.
 * FLASHINFER_NO_MEMORY where the budget has no room for them now.
 */
flashinfer_status flashinfer_prefetch(flashinfer_loader *loader, const flashinfer_part *parts, size_t count,
                                      flashinfer_error *error);

/*
 * Reads parts whole, or waits for their prefetch. pieces: an array of `count`, each with its size set;
 * entry i is filled in for parts[i]. All share one hold, which is the same in each and released once.
 * After FLASHINFER_TIMEOUT the same call goes on waiting.
 */
flashinfer_status flashinfer_load(flashinfer_loader *loader, const flashinfer_part *parts, size_t count,
                                  int64_t timeout_milliseconds, flashinfer_piece *pieces,
                                  flashinfer_error *error);

/*
 * As flashinfer_prefetch and flashinfer_load, of rows: thousands may be asked for at once, anywhere in the file, and
 * are read with the drive's queue kept full. Neighbours are read together. An image's checksums are of extents
 * (32 KiB of embedding tables, 1 MiB of others), which are read whole.
 */
flashinfer_status flashinfer_prefetch_rows(flashinfer_loader *loader, const flashinfer_rows *rows,
                                           size_t count, flashinfer_error *error);
flashinfer_status flashinfer_load_rows(flashinfer_loader *loader, const flashinfer_rows *rows, size_t count,
                                       int64_t timeout_milliseconds, flashinfer_piece *pieces,
                                       flashinfer_error *error);

/*
 * Gives up a prefetch, or a load that timed out, of the same list and by the same kind of list: its reads are
 * waited for, and the budget has its memory back. Nothing happens where there is none; without this call a
 * prefetch keeps its memory until the loader is closed.
 */
flashinfer_status flashinfer_cancel_prefetch(flashinfer_loader *loader, const flashinfer_part *parts, size_t count,
                                             flashinfer_error *error);
flashinfer_status flashinfer_cancel_prefetch_rows(flashinfer_loader *loader, const flashinfer_rows *rows,
                                                  size_t count, flashinfer_error *error);

/*
 * Reads rows into the caller's memory, beside the budget: memory that is pinned for a device, or shared.
 *
 * memory: begins at a multiple of 4096 and has byte_count bytes, at least what flashinfer_load_byte_count says
 * for the same list: whole pages of the file are read. pieces: as for flashinfer_load; data lies in `memory`, and
 * hold is 0. Where this fails, or is cancelled, nothing writes to `memory` after it has returned.
 */
flashinfer_status flashinfer_load_byte_count(flashinfer_loader *loader, const flashinfer_rows *rows,
                                             size_t count, uint64_t *byte_count, flashinfer_error *error);
flashinfer_status flashinfer_load_into(flashinfer_loader *loader, const flashinfer_rows *rows, size_t count,
                                       void *memory, uint64_t byte_count, flashinfer_piece *pieces,
                                       flashinfer_error *error);

/*
 * Lends memory within the budget, zero at first, for what the caller makes of tensors; aligned to 4096.
 * FLASHINFER_NO_MEMORY where the budget has no room for it now.
 */
flashinfer_status flashinfer_allocate(flashinfer_loader *loader, uint64_t byte_count, void **data,
                                      flashinfer_hold *hold, flashinfer_error *error);

/*
 * The matrices of one expert of a layer: writes at most `capacity` parts and their number.
 * FLASHINFER_NOT_FOUND where the layer has no such expert.
 */
flashinfer_status flashinfer_bundle(flashinfer_loader *loader, uint64_t layer, uint64_t expert,
                                    flashinfer_part *parts, size_t capacity, size_t *count,
                                    flashinfer_error *error);

/*
 * Converts rows of a tensor from a piece that begins with a whole row (interleaved: a whole group of
 * sixteen) to 32-bit floats, row after row.
 *
 * data: byte_count bytes of the tensor's type, as a piece has them. first_row, row_count: counted from the
 * piece's first. values: room for `capacity` floats, of which row_count times the tensor's columns are
 * written; it is the caller's, who counts it in caller_bytes, or of flashinfer_allocate. FLASHINFER_INVALID where the bytes do not hold these rows or values has no room for them;
 * FLASHINFER_BAD_DATA where the type is no weight's.
 */
flashinfer_status flashinfer_dequantise(flashinfer_loader *loader, uint64_t tensor, const void *data,
                                        uint64_t byte_count, uint64_t first_row, uint64_t row_count,
                                        float *values, size_t capacity, flashinfer_error *error);

/* What the drive did for a loader so far. */
typedef struct flashinfer_statistics {
  size_t size;
  uint64_t bytes_read;
  uint64_t requests;
  uint64_t retries;
  /* Time with at least one read in flight, and time that the caller waited. */
  uint64_t busy_nanoseconds;
  uint64_t wait_nanoseconds;
  double mean_queue_depth;
} flashinfer_statistics;
#define FLASHINFER_STATISTICS_INIT {sizeof(flashinfer_statistics), 0, 0, 0, 0, 0, 0.0}

flashinfer_status flashinfer_get_statistics(flashinfer_loader *loader, flashinfer_statistics *statistics,
                                            flashinfer_error *error);

/* ---------------------------------------------------------------- Text */

typedef struct flashinfer_generator flashinfer_generator;

typedef struct flashinfer_generator_options {
  size_t size;
  /* Bound on the process's peak resident set, in bytes; default: 80 % of what is free, in its container too. */
  uint64_t ram;
  /* Positions for prompt and answer together; default 2048, at most what the model was trained for. */
  uint64_t context_length;
  /* Default: one per processor that the process may use, in its container too. */
  uint32_t thread_count;
  uint32_t reserved;
} flashinfer_generator_options;
#define FLASHINFER_GENERATOR_OPTIONS_INIT {sizeof(flashinfer_generator_options), 0, 0, 0, 0}

/* Opens a GGUF file (of a split model any member) or flash image that can be run. Ownership as with flashinfer_open. */
flashinfer_status flashinfer_generator_open(const char *path, const flashinfer_generator_options *options,
                                            flashinfer_generator **generator, flashinfer_error *error);

flashinfer_status flashinfer_generator_close(flashinfer_generator *generator, flashinfer_error *error);

/* How to continue a prompt; use the initialiser. */
typedef struct flashinfer_generation {
  size_t size;
  uint64_t maximum_tokens;
  /* 0 takes the most probable token. */
  float temperature;
  /* Only the most probable tokens that reach this probability together; 1: all. */
  float top_p;
  /* Only so many of the most probable tokens; 0: all. */
  uint32_t top_k;
  /*
   * Whether `seed` counts; otherwise one is drawn, which the result tells. Equal prompts and seeds give equal
   * answers; earlier versions gave others.
   */
  uint32_t is_seeded;
  uint64_t seed;
  /* The caller's number for this generation, for flashinfer_cancel_ticket; 0: none. */
  uint64_t ticket;
  /* Only tokens with at least this share of the highest probability; 0: all. */
  float min_p;
  /* What the latest 64 tokens are made less likely by; 0 or 1: nothing. */
  float repetition_penalty;
} flashinfer_generation;
#define FLASHINFER_GENERATION_INIT {sizeof(flashinfer_generation), 512, 0.7f, 0.95f, 40, 0, 0, 0, 0.05f, 1.0f}

typedef int32_t flashinfer_finish_reason;
enum {
  /* The model ended its answer. */
  FLASHINFER_FINISH_STOP = 1,
  /* maximum_tokens were generated. */
  FLASHINFER_FINISH_LENGTH = 2,
  /* The context is full. */
  FLASHINFER_FINISH_CONTEXT = 3,
  /* The sink or a cancellation ended it. */
  FLASHINFER_FINISH_CANCELLED = 4
};

/* How a generation went. Filled in where it returns FLASHINFER_OK or FLASHINFER_CANCELLED. */
typedef struct flashinfer_result {
  size_t size;
  uint64_t prompt_tokens;
  uint64_t answer_tokens;
  /* What its random choices were seeded with. */
  uint64_t seed;
  flashinfer_finish_reason finish_reason;
  uint32_t reserved;
  /* What is odd about the prompt, such as two BOS tokens; otherwise empty. */
  char warning[256];
} flashinfer_result;
#define FLASHINFER_RESULT_INIT {sizeof(flashinfer_result), 0, 0, 0, 0, 0, {0}}

/*
 * Takes text as it is generated: whole UTF-8 characters, not NUL-terminated, valid during the call. Runs on
 * the thread that called flashinfer_generate, must return, and must not use the generator, except to cancel
 * it. Other than 0 ends the generation.
 */
typedef int32_t (*flashinfer_text_sink)(void *context, const char *text, size_t byte_count);

/*
 * Continues `prompt` (UTF-8, NUL-terminated), in which control tokens may be spelt out, and hands text to
 * `sink`. FLASHINFER_CANCELLED where the sink or a cancellation ended it. result: may be NULL.
 */
flashinfer_status flashinfer_generate(flashinfer_generator *generator, const char *prompt,
                                      const flashinfer_generation *generation, flashinfer_text_sink sink,
                                      void *context, flashinfer_result *result, flashinfer_error *error);

typedef uint32_t flashinfer_role;
enum { FLASHINFER_ROLE_SYSTEM = 1, FLASHINFER_ROLE_USER = 2, FLASHINFER_ROLE_ASSISTANT = 3 };

/* One message of a conversation. */
typedef struct flashinfer_message {
  size_t size;
  flashinfer_role role;
  uint32_t reserved;
  /* UTF-8, NUL-terminated; what looks like a control token in it stays text. */
  const char *text;
} flashinfer_message;

/*
 * Answers a conversation, which the model's chat template frames. Most templates take one system message,
 * first, then user and assistant by turns. FLASHINFER_INVALID where the model has no chat template or the
 * template refuses such a conversation. messages: only read during the call.
 */
flashinfer_status flashinfer_chat(flashinfer_generator *generator, const flashinfer_message *messages,
                                  size_t count, const flashinfer_generation *generation,
                                  flashinfer_text_sink sink, void *context, flashinfer_result *result,
                                  flashinfer_error *error);

/*
 * As flashinfer_chat, of a conversation in JSON as chat APIs take it: a list of messages, which may hold
 * content in parts, reasoning and tool calls, or an object with "messages" and, where there are some, "tools",
 * "documents", "add_generation_prompt", "reasoning_effort" and "chat_template_kwargs". FLASHINFER_INVALID also
 * where it is none, with the byte. json: UTF-8, NUL-terminated; what looks like a control token in it stays
 * text.
 */
flashinfer_status flashinfer_chat_json(flashinfer_generator *generator, const char *json,
                                       const flashinfer_generation *generation, flashinfer_text_sink sink,
                                       void *context, flashinfer_result *result, flashinfer_error *error);

/*
 * Ends the stream, load or generation under way with a loader or generator, whose call returns
 * FLASHINFER_CANCELLED soon. Where nothing is under way, what ends is the next wait for a piece, load or
 * generation: no cancellation is lost. handle: either kind.
 */
flashinfer_status flashinfer_cancel(void *handle, flashinfer_error *error);

/*
 * Ends the generation with this ticket and all with smaller ones, whether they are under way or yet to
 * begin; others are not touched. For callers who cannot know whether the one that they mean has ended.
 */
flashinfer_status flashinfer_cancel_ticket(flashinfer_generator *generator, uint64_t ticket,
                                           flashinfer_error *error);

#ifdef __cplusplus
}
#endif

/* Many sequences at the same time. */
#include "flashinfer_engine.h"

#endif
