/* Writes the logits that llama.cpp computes after every one of the given tokens, as `flashinfer-bench logits` does.
 * usage: llama_logits GGUF TOKENS CONTEXT OUTPUT
 * Keys and values are in f32 and attention is by its definition, which is as near to f32 as llama.cpp gets. */
#include <llama.h>
#include <stdio.h>
#include <stdlib.h>

static void quiet(enum ggml_log_level level, const char *text, void *unused) {
  (void)unused;
  if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

int main(int argc, char **argv) {
  if (argc != 5) return 64;
  llama_log_set(quiet, NULL);
  struct llama_model *model = llama_model_load_from_file(argv[1], llama_model_default_params());
  if (!model) return 65;
  struct llama_batch batch = llama_batch_init((int32_t)strtol(argv[3], NULL, 10), 0, 1);
  for (char *rest = argv[2]; *rest; rest += *rest == ',') {
    int32_t place = batch.n_tokens++;
    batch.token[place] = (llama_token)strtol(rest, &rest, 10);
    batch.pos[place] = place;
    batch.n_seq_id[place] = 1;
    batch.seq_id[place][0] = 0;
    batch.logits[place] = 1;
  }
  struct llama_context_params parameters = llama_context_default_params();
  parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = (uint32_t)strtoul(argv[3], NULL, 10);
  parameters.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
  parameters.type_k = parameters.type_v = GGML_TYPE_F32;
  struct llama_context *context = llama_init_from_model(model, parameters);
  if (!context || llama_decode(context, batch) != 0) return 70;
  size_t count = (size_t)llama_vocab_n_tokens(llama_model_get_vocab(model));
  FILE *file = fopen(argv[4], "wb");
  if (!file) return 73;
  for (int32_t place = 0; place < batch.n_tokens; place++)
    if (fwrite(llama_get_logits_ith(context, place), sizeof(float), count, file) != count) return 74;
  return fclose(file) == 0 ? 0 : 74;
}
