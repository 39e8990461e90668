import sys

import flashinfer_ssd

# Several answers at a time cost hardly more reading than one.
prompts = sys.argv[2:] or ["The capital of France is", "A short poem about the sea:", "1, 2, 3,"]
with flashinfer_ssd.Engine(sys.argv[1], ram="600MiB", context=256, sequences=4) as engine:
    answers = [engine.open(prompt, max_tokens=24, seed=1) for prompt in prompts]
    for prompt, answer in zip(prompts, answers):
        print(prompt, "".join(answer).strip(), sep=" … ")
        print(f"  {answer.token_count} tokens, {answer.finish_reason}")
        # What was read stays in the context: only what is new is read in the next turn.
        print("  " + "".join(answer.append(" In other words:", max_tokens=12)).strip())
        answer.close()
