#!/usr/bin/env python3
"""FFNs in bundles of neurons: the ladder of "LLM in a flash", and bundled reads against the drive's random ones.

usage: sparse.py IMAGE --ram 6700MB [--rounds 3] [--tokens 16] [--record]

IMAGE comes from flashinfer-convert --bundle neurons (of an OPT-6.7B shape: synth_opt.py); --ram is what the
process may hold, half the model in the paper. Each round, in turn: fio's sequential reads and its random reads of
a bundle's size at the depth that decoding reaches, then flashinfer-bench sparse with all rungs.

Needs fio, and root for a cold cache. --record appends to results.tsv.
"""
import argparse, json, os, sys
import measure
from measure import drop, fio
import record

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("image"); p.add_argument("--ram", required=True); p.add_argument("--rounds", type=int, default=3)
p.add_argument("--tokens", type=int, default=16); p.add_argument("--warmup", type=int, default=12)
p.add_argument("--depth", type=int, default=64)
p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
p.add_argument("--bench", default=".build/release/flashinfer-bench")
p.add_argument("--inspect", default=".build/release/flashinfer-inspect"); p.add_argument("--record", action="store_true")
a = p.parse_args()
measure.need_fio()
neurons = json.loads(measure.run([a.inspect, a.image, "--json"])).get("neurons")
if not neurons: sys.exit(f"{a.image} has no bundles of neurons")
block = f"{neurons['bundleBytes'] + 4095 >> 12 << 2}KiB"

rows = []
for number in range(a.rounds):
    drop(a.image)
    sequential, random = fio(a.image), fio(a.image, block, a.depth, True)
    figures = measure.ours(a.bench, "sparse", a.image, "--ram", a.ram, "--random-tokens", 1, "--selector", "predictor", "--tokens", a.tokens, "--warmup", a.warmup,
                           "--threads", a.threads)
    random = (random + fio(a.image, block, a.depth, True)) / 2
    best = {key.removesuffix("/bundling"): value for key, value in figures.items() if key.endswith("/bundling")}
    rate = best["bytesPerToken"] / best["ioMilliseconds"] * 1e3
    figures |= {"fio sequential": sequential, "fio random": random, "reads": rate / random,
                "io": figures["ioMilliseconds/naive"] / best["ioMilliseconds"],
                "wait": figures["ioMilliseconds/naive"] / best["waitMilliseconds"],
                "total": figures["totalMilliseconds/naive"] / best["totalMilliseconds"],
                "management": best["managementMilliseconds"] / best["totalMilliseconds"]}
    rows.append(figures)
    print(f"round {number + 1}: " + ", ".join(f"{k} {figures[k]:.4g}" for k in list(figures)[-7:]), file=sys.stderr, flush=True)

def report(figure, key, unit, limit):
    values = [row[key] for row in rows]
    record.report(f"benchmarks/sparse.py {os.path.basename(a.image)} --ram {a.ram}", figure, values, unit, limit, "cold, direct", a.record)

published = {"naive": (13.4, 2196), "hybrid": (6.7, 1090), "selection": (0.9, 738), "windowing": (0.2, 164), "bundling": (0.2, 87)}
for rung, (gigabytes, milliseconds) in published.items():
    report(f"{rung}, bytes a token", f"bytesPerToken/{rung}", "B", (gigabytes * 1e9, "the paper's OPT-6.7B"))
    report(f"{rung}, I/O", f"ioMilliseconds/{rung}", "ms", (milliseconds, "the paper's"))
    report(f"{rung}, total", f"totalMilliseconds/{rung}", "ms", "")
for key, limit in [("fractionUsed", (0.1, "the paper's")), ("fractionRead", (0.024, "the paper's"))]:
    report(f"bundling, {key}", f"{key}/bundling", "of all neurons", limit)
report("bundled reads / fio random", "reads", "", (0.9, f"fio {block} x {a.depth}"))
report("naive / bundling, I/O", "io", "", (25, "paper: 25"))
report("naive / bundling, I/O waited for", "wait", "", "")
report("naive / bundling, total", "total", "", (15, "paper: 4.8, CPU"))
report("memory management / total", "management", "", (0.05, "at most"))
