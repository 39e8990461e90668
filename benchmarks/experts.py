#!/usr/bin/env python3
"""Mixture-of-experts models larger than memory, against the drive's random reads and llama.cpp.

usage: experts.py IMAGE [--gguf GGUF] [--limit 3000MiB] [--rounds 5] [--read SIZE] [--record]

IMAGE holds experts in bundles (flashinfer-convert's default), or is a GGUF file, in which the parts of an expert lie apart, and
--read says how long they are; random weights with random ids route
uniformly, which is the worst case for a cache. Each round, in turn, in a memory control group of --limit:

  decode   after a warm-up that fills the cache: bytes the kernel read per second ÷ fio's random reads of a
           bundle's size before and after, tokens/s ÷ llama.cpp's (mmap, not repacked)
  prefill  256 tokens ÷ min(one sweep of the weights at the drive's speed, our own speed with all weights in
           memory), and ÷ llama.cpp's

Needs fio, and root for control groups and a cold cache. --record appends to results.tsv.
"""
import argparse, json, os, shutil, statistics, subprocess, sys
import measure
from measure import byte_count, drop, fio
import record

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("image"); p.add_argument("--gguf"); p.add_argument("--limit", default="3000MiB")
p.add_argument("--read"); p.add_argument("--rounds", type=int, default=5); p.add_argument("--tokens", type=int, default=32)
p.add_argument("--warmup", type=int, default=30); p.add_argument("--prompt", type=int, default=256)
p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
p.add_argument("--bench", default=".build/release/flashinfer-bench")
p.add_argument("--inspect", default=".build/release/flashinfer-inspect")
p.add_argument("--llama-bench", default=shutil.which("llama-bench")); p.add_argument("--record", action="store_true")
a = p.parse_args()
measure.need_fio()
if not a.llama_bench: print(measure.LLAMA_HINT, file=sys.stderr)
limit, ram = byte_count(a.limit), f"{(byte_count(a.limit) >> 20) - 64}MiB"
experts = json.loads(measure.run([a.inspect, a.image, "--json"]))["architecture"].get("experts") or {}
read = experts.get("bundleBytes") or (byte_count(a.read) if a.read else None)
if not read: sys.exit(f"{a.image} has no bundles of experts: --read says how long their parts are")
bundle = f"{read + 4095 >> 12 << 2}KiB"

def ours(*arguments, limit=None):
    return measure.ours(a.bench, *arguments, "--threads", a.threads, limit=limit)

def llama(*arguments):
    return measure.llama(a.llama_bench, a.gguf, *arguments, threads=a.threads, limit=limit)

def ratio(x, y): return None if x is None or y is None else x / y

rows = []
for number in range(a.rounds):
    drop(a.image)
    before = fio(a.image, bundle, 8, True)
    decode = ours("decode", a.image, "--tokens", a.tokens, "--warmup", a.warmup, "--random-tokens", 1, "--ram", ram, limit=limit)
    after = fio(a.image, bundle, 8, True)
    peer = llama("-p", "0", "-n", "4")
    drop(a.image)
    drive = fio(a.image)
    prompt = ours("prefill", a.image, "--tokens", a.prompt, "--ram", ram, limit=limit)
    drive = (drive + fio(a.image)) / 2
    whole = ours("prefill", a.image, "--tokens", a.prompt)["prefillTokensPerSecond"]
    peer_prompt = llama("-p", str(a.prompt), "-n", "0")
    sweep = a.prompt / (os.path.getsize(a.image) / drive)
    speed, prefill = decode["decodeTokensPerSecond"], prompt["prefillTokensPerSecond"]
    rows.append({
        "speed": speed, "share": decode["kernelReadBytesPerSecond"] / ((before + after) / 2), "hits": decode["expertHitRate"],
        "bytes": decode["expertBytesPerToken"], "peer": peer, "ratio": ratio(speed, peer), "prefill": prefill,
        "limit": min(sweep, whole), "prefillShare": prefill / min(sweep, whole), "peerPrefill": peer_prompt,
        "prefillRatio": ratio(prefill, peer_prompt)})
    print(f"round {number + 1}: " + ", ".join(f"{k} {v:.4g}" for k, v in rows[-1].items() if v is not None), file=sys.stderr, flush=True)

def report(figure, key, unit, limit, cache="cold, direct"):
    record.report(f"benchmarks/experts.py {os.path.basename(a.image)} --limit {a.limit}", figure, [row[key] for row in rows],
                  unit, limit, cache, a.record)

report("decode", "speed", "tokens/s", "drive")
report("bytes read per second / fio random", "share", "", (0.85, f"fio {bundle} x 8"))
report("expert hit rate", "hits", "", "slots / experts, where routing is uniform")
report("expert bytes per token", "bytes", "B", "")
report("llama.cpp decode", "peer", "tokens/s", "", "cold, mmap")
report("decode / llama.cpp", "ratio", "", 8, "cold")
report(f"prefill {a.prompt}", "prefill", "tokens/s", (statistics.median(row["limit"] for row in rows), "sweep at the drive's speed, or resident"))
report(f"prefill {a.prompt} / limit", "prefillShare", "", 0.85)
report(f"llama.cpp prefill {a.prompt}", "peerPrefill", "tokens/s", "", "cold, mmap")
report(f"prefill {a.prompt} / llama.cpp", "prefillRatio", "", 1.3, "cold")
