#!/usr/bin/env python3
"""Decoding with weights of one type, against llama.cpp with the same file.

usage: llama_bench.py GGUF... [--tokens 32] [--rounds 5] [--llama-bench PATH] [--record]

Each GGUF is a model whose matrices are of one type (llama-quantize --pure). In every round each file is decoded by
flashinfer-bench and by llama-bench in turn, all of it in memory; the figure is the median of the rounds' ratios. --record
appends to results.tsv. With FLASHINFER_ISA=avx2 the other must be a llama.cpp for AVX2 too (-DGGML_NATIVE=OFF -DGGML_AVX2=ON
-DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON); each type is then held against 1.
"""
import argparse, json, os, shutil, sys
import measure, record

# The least ratio: llama.cpp has kernels for interleaved rows for some types only, and few for those below 4 bits.
LEAST = {"Q5_K": 1.1, "Q6_K": 1.1, "IQ4_XS": 1.1, "NVFP4": 1.1, "Q3_K": 1.1, "Q2_K": 1.1, "IQ3_XXS": 1.5, "IQ3_S": 1.5, "TQ1_0": 1.5,
         "Q1_0": 1.5, "IQ2_XXS": 1.3, "IQ2_XS": 1.3, "IQ2_S": 1.3}

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("gguf", nargs="+"); p.add_argument("--tokens", type=int, default=32); p.add_argument("--rounds", type=int, default=5)
p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
p.add_argument("--bench", default=".build/release/flashinfer-bench"); p.add_argument("--inspect", default=".build/release/flashinfer-inspect")
p.add_argument("--llama-bench", default=shutil.which("llama-bench")); p.add_argument("--record", action="store_true")
a = p.parse_args()
if not a.llama_bench: print(measure.LLAMA_HINT, file=sys.stderr)

rows = {path: {} for path in a.gguf}
for number in range(a.rounds):
    for path, row in rows.items():
        own = measure.ours(a.bench, "decode", path, "--tokens", a.tokens, "--random-tokens", 1, "--threads", a.threads)
        peer = measure.llama(a.llama_bench, path, "-p", "0", "-n", str(a.tokens), threads=a.threads)
        row.setdefault("own", []).append(own["decodeTokensPerSecond"])
        row.setdefault("peer", []).append(peer)
        row.setdefault("ratio", []).append(peer and own["decodeTokensPerSecond"] / peer)

for path, row in rows.items():
    # Of most matrices: the table of embeddings may have a type of its own, and more bytes than all others.
    classes = json.loads(measure.run([a.inspect, path, "--json"]))["tensors"]["classes"]
    kind = max((c for c in classes if c["type"] != "F32"), key=lambda c: c["count"])["type"]
    isa = os.environ.get("FLASHINFER_ISA")
    def report(figure, key, unit, limit):
        record.report((f"FLASHINFER_ISA={isa} " if isa else "") + f"benchmarks/llama_bench.py {os.path.basename(path)}", figure, row[key],
                      unit, limit, "resident", a.record, kind + (f", both {isa}" if isa else ""))
    report("decode", "own", "tokens/s", "")
    report("llama.cpp decode", "peer", "tokens/s", "")
    report("decode / llama.cpp", "ratio", "", (1.0 if isa else LEAST.get(kind, 1.0), "at least"))
