#!/usr/bin/env python3
"""FFNs in bundles of neurons: the ladder of "LLM in a flash", and bundled reads against the drive's random ones.

usage: sparse.py IMAGE --ram 6700MB [--rounds 3] [--tokens 16] [--record]

IMAGE comes from flashinfer-convert --bundle neurons (of an OPT-6.7B shape: synth_opt.py); --ram is what the
process may hold, half the model in the paper. Each round, in turn: fio's sequential reads and its random reads of
a bundle's size at the depth that decoding reaches, then flashinfer-bench sparse with all rungs.

Needs fio, and root for a cold cache. --record appends to results.tsv.
"""
import argparse, os, re, statistics, sys
import measure
from measure import drop, fio
from record import record

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("image"); p.add_argument("--ram", required=True); p.add_argument("--rounds", type=int, default=3)
p.add_argument("--tokens", type=int, default=16); p.add_argument("--warmup", type=int, default=12)
p.add_argument("--depth", type=int, default=64)
p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
p.add_argument("--bench", default=".build/release/flashinfer-bench")
p.add_argument("--inspect", default=".build/release/flashinfer-inspect"); p.add_argument("--record", action="store_true")
a = p.parse_args()
measure.need_fio()
found = re.search(r"neurons: bundles of ([0-9.]+) (B|KiB|MiB)", measure.run([a.inspect, a.image]))
if not found: sys.exit(f"{a.image} has no bundles of neurons")
unit = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20}[found.group(2)]
block = f"{int(float(found.group(1)) * unit) + 4095 >> 12 << 2}KiB"

rows = []
for number in range(a.rounds):
    drop(a.image)
    sequential, random = fio(a.image), fio(a.image, block, a.depth, True)
    figures = measure.ours(a.bench, "sparse", a.image, "--ram", a.ram, "--tokens", a.tokens, "--warmup", a.warmup,
                           "--threads", a.threads)
    random = (random + fio(a.image, block, a.depth, True)) / 2
    best = {key.split("/")[1]: value for key, value in figures.items() if key.startswith("bundling/")}
    rate = best["bytesPerToken"] / best["ioMilliseconds"] * 1e3
    figures |= {"fio sequential": sequential, "fio random": random, "reads": rate / random,
                "io": figures["naive/ioMilliseconds"] / best["ioMilliseconds"],
                "wait": figures["naive/ioMilliseconds"] / best["waitMilliseconds"],
                "total": figures["naive/totalMilliseconds"] / best["totalMilliseconds"],
                "management": best["managementMilliseconds"] / best["totalMilliseconds"]}
    rows.append(figures)
    print(f"round {number + 1}: " + ", ".join(f"{k} {figures[k]:.4g}" for k in list(figures)[-7:]), file=sys.stderr, flush=True)

def report(figure, key, unit, limit):
    values = [row[key] for row in rows]
    value, spread = statistics.median(values), f"{min(values):.3g} to {max(values):.3g}"
    print(f"{figure}: {value:.4g} {unit} ({spread}; held against: {limit})", flush=True)
    if a.record:
        record(f"benchmarks/sparse.py {os.path.basename(a.image)} --ram {a.ram}", figure, value, unit, limit, "cold, direct",
               f"median of {len(values)} rounds, {spread}")

published = {"naive": (13.4, 2196), "hybrid": (6.7, 1090), "selection": (0.9, 738), "windowing": (0.2, 164), "bundling": (0.2, 87)}
for rung, (gigabytes, milliseconds) in published.items():
    report(f"{rung}, bytes a token", f"{rung}/bytesPerToken", "B", f"the paper's OPT-6.7B: {gigabytes}e9")
    report(f"{rung}, I/O", f"{rung}/ioMilliseconds", "ms", f"the paper's: {milliseconds}")
    report(f"{rung}, total", f"{rung}/totalMilliseconds", "ms", "")
for key, limit in [("fractionUsed", "the paper's: 0.1"), ("fractionRead", "the paper's: 0.024")]:
    report(f"bundling, {key}", f"bundling/{key}", "of all neurons", limit)
report("bundled reads / fio random", "reads", "", f"0.9 (fio {block} x {a.depth})")
report("naive / bundling, I/O", "io", "", "25 (paper: 25)")
report("naive / bundling, I/O waited for", "wait", "", "")
report("naive / bundling, total", "total", "", "15 (paper: 4.8, CPU)")
report("memory management / total", "management", "", "0.05 at most")
