#!/usr/bin/env python3
"""Decoding speed, resident against llama.cpp and streamed against the drive, in turn in one go.

usage: speed_floor.py GGUF IMAGE [--ram 33MiB] [--rounds 5] [--record]

Each round runs llama-bench (text generation, two threads), our resident decode, fio, our decode under
--ram, and fio again; the figures are medians of the rounds' ratios. llama-bench is found on PATH or by
--llama-bench (it comes with llama.cpp: cmake -B build && cmake --build build --target llama-bench);
without it that ratio is skipped, and said so. Needs fio.
"""
import argparse, json, os, shutil, statistics, sys
import measure
from record import record

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("gguf"); p.add_argument("image"); p.add_argument("--ram", default="33MiB")
p.add_argument("--rounds", type=int, default=5); p.add_argument("--tokens", type=int, default=64)
p.add_argument("--threads", type=int, default=os.cpu_count())
p.add_argument("--bench", default=".build/release/flashinfer-bench")
p.add_argument("--llama-bench", default=shutil.which("llama-bench"))
p.add_argument("--record", action="store_true")
a = p.parse_args()
measure.need_fio()

def ours(*options):
    return measure.ours(a.bench, "decode", a.image, "--tokens", a.tokens, "--threads", a.threads, *options)

def drive(): return measure.fio(a.image, "256KiB", 16)

rows = []
for _ in range(a.rounds):
    row = {"resident": ours()["decodeTokensPerSecond"]}
    if a.llama_bench: row["llama"] = measure.llama(a.llama_bench, a.gguf, "-p", "0", "-n", str(a.tokens), threads=a.threads)
    before, streamed, after = drive(), ours("--ram", a.ram), drive()
    row.update(drive=(before + after) / 2, streamed=streamed["decodeTokensPerSecond"],
               limit=(before + after) / 2 / streamed["streamedBytes"])
    rows.append(row)
    print(json.dumps(row), file=sys.stderr)

def report(figure, values, unit, limit, cache):
    value = statistics.median(values)
    print(f"{figure}: {value:.4g} {unit} (held against: {limit})")
    if a.record:
        name = os.path.basename(a.image)
        record(f"benchmarks/speed_floor.py {name} --ram {a.ram}", figure, value, unit, limit, cache,
               f"median of {a.rounds} rounds")

report("resident decode", [r["resident"] for r in rows], "tokens/s", "llama.cpp", "resident")
if a.llama_bench:
    report("llama.cpp decode", [r["llama"] for r in rows], "tokens/s", "", "resident")
    report("resident decode / llama.cpp", [r["resident"] / r["llama"] for r in rows], "", "0.7", "resident")
else:
    print("llama-bench not found: the ratio to llama.cpp is skipped", file=sys.stderr)
report("drive, fio 256 KiB QD16", [r["drive"] for r in rows], "B/s", "", "direct")
report("streamed decode", [r["streamed"] for r in rows], "tokens/s",
       f"{statistics.median([r['limit'] for r in rows]):.4g} (drive / streamed bytes)", "direct")
report("streamed decode / limit", [r["streamed"] / r["limit"] for r in rows], "", "0.7", "direct")
