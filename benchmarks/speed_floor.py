#!/usr/bin/env python3
"""Decoding speed, resident against llama.cpp and streamed against the drive, in turn in one go.

usage: speed_floor.py GGUF IMAGE [--ram 33MiB] [--rounds 5] [--record]

Each round runs llama-bench (text generation, two threads), our resident decode, fio, our decode under
--ram, and fio again; the figures are medians of the rounds' ratios. llama-bench is found on PATH or by
--llama-bench (it comes with llama.cpp: cmake -B build && cmake --build build --target llama-bench);
without it that ratio is skipped, and said so. Needs fio.
"""
import argparse, json, os, shutil, statistics, subprocess, sys
from record import record

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("gguf"); p.add_argument("image"); p.add_argument("--ram", default="33MiB")
p.add_argument("--rounds", type=int, default=5); p.add_argument("--tokens", type=int, default=64)
p.add_argument("--threads", type=int, default=os.cpu_count())
p.add_argument("--bench", default=".build/release/flashinfer-bench")
p.add_argument("--llama-bench", default=shutil.which("llama-bench"))
p.add_argument("--record", action="store_true")
a = p.parse_args()
if not shutil.which("fio"): sys.exit("fio is needed: apt-get install fio")

def llama():
    out = subprocess.run([a.llama_bench, "-m", a.gguf, "-t", str(a.threads), "-p", "0", "-n", str(a.tokens),
                          "-r", "1", "-o", "json"], capture_output=True, text=True, check=True).stdout
    return json.loads(out)[0]["avg_ts"]

def ours(*options):
    out = subprocess.run([a.bench, "decode", a.image, "--tokens", str(a.tokens), "--threads", str(a.threads),
                          "--json", *options], capture_output=True, text=True, check=True).stdout
    return {f["name"]: f["value"] for f in json.loads(out)["figures"]}

def fio(block, depth=16):
    """Bytes per second of sequential direct reads."""
    out = subprocess.run(["fio", "--name=r", f"--filename={a.image}", "--rw=read", f"--bs={block}",
                          f"--iodepth={depth}", "--direct=1", "--ioengine=io_uring", "--readonly", "--runtime=2",
                          "--time_based", "--output-format=json"], capture_output=True, text=True, check=True).stdout
    return json.loads(out)["jobs"][0]["read"]["bw_bytes"]

rows = []
for _ in range(a.rounds):
    row = {"resident": ours()["decodeTokensPerSecond"]}
    if a.llama_bench: row["llama"] = llama()
    before, streamed, after = fio("256k"), ours("--ram", a.ram), fio("256k")
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
