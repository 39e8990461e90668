#!/usr/bin/env python3
"""How often is a draft model right? Along a model's own greedy answers, which of its tokens are the draft's first choice (or
among its first 4), and so how many tokens a pass gives with drafts of 4, 8 or 16 tokens in a line.

usage: agreement.py MODEL DRAFT... [--kinds copy,structured,prose]

A token that is right is accepted, and the draft goes on as the answer does; so counting needs no speculation: it is exact for drafts
that are a line of first choices. Needs numpy. MODEL may be the one that was enlarged, whose tokens are the same.
"""
import argparse, json, os, subprocess, tempfile
import numpy as np

here = os.path.dirname(os.path.abspath(__file__))
p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("model"); p.add_argument("draft", nargs="+")
p.add_argument("--kinds", default="copy,structured,prose"); p.add_argument("--binaries", default=here + "/../.build/release")
a = p.parse_args()
DEPTHS = (4, 8, 16)

def answer(line):
    """The tokens of a prompt, and of the greedy answer."""
    line = json.loads(line)
    prompt = ["--messages", "-"] if "messages" in line else ["--prompt-file", "-"]
    out = subprocess.run([f"{a.binaries}/flashinfer-run", a.model, *prompt, "--temperature", "0", "--max-tokens",
                          str(line["max_tokens"]), "--json", "--quiet"], stdout=subprocess.PIPE, check=True, text=True,
                         input=json.dumps(line["messages"]) if "messages" in line else line["prompt"]).stdout
    result = json.loads(out)
    return result["promptTokens"], result["tokens"]

def ranks(draft, prompt, tokens):
    """How many tokens the draft prefers to each of the answer's."""
    with tempfile.NamedTemporaryFile() as file:
        subprocess.run([f"{a.binaries}/flashinfer-bench", "logits", draft, "--tokens", ",".join(map(str, prompt + tokens)),
                        "--output", file.name, "--quiet"], stdout=subprocess.DEVNULL, check=True)
        logits = np.fromfile(file.name, "<f4").reshape(len(prompt) + len(tokens), -1)[len(prompt) - 1:-1]
    return (logits > logits[np.arange(len(tokens)), tokens][:, None]).sum(1)

def tokens_a_pass(right, depth):
    """Of drafts of `depth` tokens in a line: those that are right up to the first that is not, and the model's own."""
    place = passes = 0
    while place < len(right):
        run = 0
        while run < depth and place + run < len(right) and right[place + run]: run += 1
        place += run + 1
        passes += 1
    return len(right), passes

for kind in a.kinds.split(","):
    answers = [answer(line) for line in open(f"{here}/speculation/{kind}.jsonl")]
    for draft in a.draft:
        found = [ranks(draft, *own) for own in answers]
        every = np.concatenate(found)
        text = f"{kind:11}{os.path.basename(draft):28} first choice {np.mean(every == 0):.3f}  of 4 {np.mean(every < 4):.3f}  tokens a pass"
        for depth in DEPTHS:
            counts = [tokens_a_pass(own == 0, depth) for own in found]
            text += f"  {depth}: {sum(c[0] for c in counts) / sum(c[1] for c in counts):.2f}"
        print(text, flush=True)
