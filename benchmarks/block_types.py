#!/usr/bin/env python3
"""Every quantised type against llama.cpp, on one model: do we read its files, and quantise, as well?

usage: block_types.py MODEL.gguf TEXT --llama FOLDER [--types Q4_K,IQ2_S] [--work FOLDER] [--chunks 8] [--reference FILE] [--record]

MODEL is a SmolLM2 of 576 columns, which padded.py widens to 768. For each type llama-quantize --pure makes a file, of which both
programs compute the perplexity of TEXT; below 4 bits also the log-probability of each scored token, ours and llama.cpp's. Where
they differ, --reference, a module whose Model(path).forward(tokens) computes in f32, says who is nearer.
Of the types that --quantize writes, our own file's perplexity is held against that of llama-quantize's, made without an importance
matrix. Files below 4 bits are made with one, of the end of TEXT, and keep their table of embeddings, which is the output head too,
in Q8_0: with a head in two bits nothing is left that could be compared. Types of one or two bits are for models trained in
them; any other becomes noise (a perplexity of millions), of which every rounding makes another one. So of these types a file
has three matrices, and the rest in Q8_0. Needs numpy and gguf (PyPI); FOLDER holds llama-quantize,
llama-imatrix and llama-perplexity. Nothing is timed.
"""
import argparse, importlib.util, json, math, os, subprocess, sys
import numpy as np
import padded
from record import record

# The name that llama-quantize has for a file of that type.
FILES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "IQ2_S": "IQ2_M", "MXFP4": "MXFP4_MOE"}
LOW = ["Q3_K", "Q2_K", "IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ2_0", "TQ1_0", "Q2_0", "Q1_0"]
TYPES = ["Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "MXFP4"] + LOW
OURS = ["Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q4_0", "Q3_K", "Q2_K", "IQ4_NL", "MXFP4"]
# Types that only models trained in them are written in, and the matrices that take them here.
TRAINED, TAKING = ["TQ2_0", "TQ1_0", "Q2_0", "Q1_0"], r"blk\.1[0-2]\.ffn_up"
CONTEXT = 512

def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode: sys.exit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return done.stdout + done.stderr

def our_perplexity(a, file):
    out = subprocess.run([a.bench, "perplexity", file, a.text, "--context", str(CONTEXT), "--chunks", str(a.chunks), "--json"],
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
    return {f["name"]: f["value"] for f in json.loads(out)["figures"]}["perplexity"]

def their_perplexity(a, file, base=None):
    out = run(f"{a.llama}/llama-perplexity", "-m", file, "-f", a.text, "-c", str(CONTEXT), "--chunks", str(a.chunks),
              *(["--kl-divergence-base", base] if base else []))
    return float(out.split("PPL =")[1].split()[0])

def their_logs(base):
    """The tokens of each chunk, and llama.cpp's log-probability of each scored one, from what llama-perplexity wrote."""
    data = np.memmap(base, dtype=np.uint8, mode="r")
    length, vocabulary, chunks = np.frombuffer(data[8:20].tobytes(), dtype=np.int32)
    start = 20 + 4 * length * chunks
    tokens = np.frombuffer(data[20:start].tobytes(), dtype=np.int32).reshape(chunks, length)
    width = 2 * ((vocabulary + 1) // 2) + 4
    rows = data[start:].view(np.uint16).reshape(-1, width)
    wanted = tokens[:, length // 2 + 1:].reshape(-1)
    scales = np.ascontiguousarray(rows[:, :4]).view(np.float32)
    return tokens, scales[:, 1] + scales[:, 0] * rows[np.arange(len(rows)), 4 + wanted]

def our_logs(a, file, tokens):
    """Our log-probability of each scored token."""
    found, output = [], f"{a.work}/logits.f32"
    for chunk in tokens:
        run(a.bench, "logits", file, "--tokens", ",".join(map(str, chunk)), "--output", output, "--quiet")
        found += scored(np.fromfile(output, dtype=np.float32).reshape(len(chunk), -1), chunk)
    os.remove(output)
    return np.array(found)

def reference_logs(a, file, tokens):
    """Log-probabilities of each scored token in f32, of the weights as the file has them."""
    spec = importlib.util.spec_from_file_location("reference", a.reference)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model, found = module.Model(file), []
    for chunk in tokens:
        found += scored(model.forward([int(t) for t in chunk]), chunk)
    return np.array(found)

def scored(logits, chunk):
    """Log-probabilities of the second half of a chunk, each after what is before it."""
    found = []
    for place in range(len(chunk) // 2, len(chunk) - 1):
        row = logits[place].astype(np.float64)
        most = row.max()
        found.append(row[chunk[place + 1]] - most - math.log(np.exp(row - most).sum()))
    return found

def quantised(a, kind, low):
    file = f"{a.work}/{kind}{'' if low else '-plain'}.gguf"
    if not os.path.exists(file) and kind in TRAINED:
        run(f"{a.llama}/llama-quantize", "--tensor-type", f"{TAKING}={kind.lower()}", f"{a.work}/padded.gguf", file + ".part", "Q8_0")
        os.rename(file + ".part", file)
    if not os.path.exists(file):
        more = ["--imatrix", importance(a), "--token-embedding-type", "q8_0"] if low else []
        run(f"{a.llama}/llama-quantize", *more, "--pure", f"{a.work}/padded.gguf", file + ".part", FILES.get(kind, kind))
        os.rename(file + ".part", file)
    return file

def importance(a):
    file = f"{a.work}/imatrix.gguf"
    if not os.path.exists(file):
        text = f"{a.work}/end.txt"
        with open(a.text, "rb") as whole, open(text, "wb") as end: end.write(whole.read()[-(1 << 16):])
        run(f"{a.llama}/llama-imatrix", "-m", f"{a.work}/padded.gguf", "-f", text, "-o", file, "-c", str(CONTEXT), "--chunks", "8")
    return file

def note(a, name, value, limit, kind, more):
    print(f"{kind:8} {name}: {value:.5f} (at most {limit}; {more})", flush=True)
    if a.record:
        record(f"benchmarks/block_types.py {kind}", name, value, "", limit, "resident",
               f"{a.chunks} chunks of {CONTEXT}; {more}" + (f"; {TAKING} alone, the rest Q8_0" if kind in TRAINED else ""), model="padded.gguf")
    return value <= limit

def compare(a, kind):
    low, good = kind in LOW, True
    file, base = quantised(a, kind, low), f"{a.work}/logs.kld" if low else None
    ours, theirs = our_perplexity(a, file), their_perplexity(a, file, base)
    good &= note(a, "perplexity/llama.cpp", ours / theirs, 1.003, kind, f"{ours:.4f} ÷ {theirs:.4f}")
    if low:
        tokens, logs = their_logs(base)
        differences = our_logs(a, file, tokens) - logs
        good &= note(a, "meanLogProbabilityDifference", float(abs(differences.mean())), 0.02, kind,
                     f"of magnitudes {abs(differences).mean():.4f}")
        os.remove(base)
        if a.reference:
            exact = reference_logs(a, file, tokens)
            for name, found in (("ours", differences + logs), ("llama.cpp", logs)):
                note(a, f"meanLogProbabilityDifference/reference {name}", float(abs((found - exact).mean())), 0.02, kind,
                     f"of magnitudes {abs(found - exact).mean():.4f}")
    if kind in OURS:
        own = f"{a.work}/{kind}.bin"
        run(a.bench.replace("-bench", "-convert"), f"{a.work}/padded.gguf", own, "--force", "--quantize", kind.lower(), "--quiet")
        ours, theirs = our_perplexity(a, own), our_perplexity(a, quantised(a, kind, False))
        good &= note(a, "quantised/llama.cpp", ours / theirs, 1.01, kind, f"{ours:.4f} ÷ {theirs:.4f}")
        os.remove(own)
    return good

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model"); p.add_argument("text"); p.add_argument("--llama", required=True)
    p.add_argument("--types", default=",".join(TYPES)); p.add_argument("--work", default="/tmp/flashinfer-types")
    p.add_argument("--chunks", type=int, default=8); p.add_argument("--bench", default=".build/release/flashinfer-bench")
    p.add_argument("--reference"); p.add_argument("--record", action="store_true")
    a = p.parse_args()
    os.makedirs(a.work, exist_ok=True)
    if not os.path.exists(f"{a.work}/padded.gguf"): padded.main(a.model, f"{a.work}/padded.gguf")
    results = [compare(a, kind) for kind in a.types.split(",")]
    sys.exit(0 if all(results) else 1)

if __name__ == "__main__": main()
