#!/usr/bin/env python3
"""Dense models at the limit of the drive, of DRAM and of the arithmetic units, and against llama.cpp.

usage: dense.py NAME... [--gguf GGUF --image IMAGE] [--small-gguf GGUF --small-image IMAGE] [--rounds 5] [--record]

NAME is one or more of: resident, resident-small, prefill, prefill-small, limited, prefill-limited, start,
smallest, or all. IMAGE is a model of about twice the limits' size (an 8B shape in Q4_0, random weights:
its decode is timed with random ids), the small one fits the caches (SmolLM2). Everything of a figure runs
in turn within a round; the figure is the median of the rounds' ratios.

  resident         decode ÷ llama.cpp; weights read per second ÷ what DRAM gives just before and after
  prefill          512 tokens ÷ llama.cpp
  limited          decode in control groups of --limits: bytes the kernel read per second ÷ fio's before and
                   after, tokens/s ÷ llama.cpp's there (mmap, not repacked)
  prefill-limited  512 tokens in the first of --limits ÷ without a limit
  start            process start to first token, cold, in the first of --limits, prompts of 4 and 512 tokens,
                   ÷ max(bytes read ÷ fio's bandwidth, the prompt's time once weights are in memory)
  smallest         decode under the smallest budget at a context of 512: ÷ fio's

Needs fio, and root for control groups and a cold cache. --record appends to results.tsv.
"""
import argparse, os, re, shutil, statistics, subprocess, sys
import measure
from measure import byte_count, drop, fio
import record

NAMES = ["resident", "resident-small", "prefill", "prefill-small", "limited", "prefill-limited", "start", "smallest"]
p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("names", nargs="+", choices=NAMES + ["all"], metavar="NAME")
p.add_argument("--gguf"); p.add_argument("--image"); p.add_argument("--small-gguf"); p.add_argument("--small-image")
p.add_argument("--limits", default="2200MiB,3000MiB"); p.add_argument("--rounds", type=int, default=5)
p.add_argument("--tokens", type=int, default=12); p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
p.add_argument("--bench", default=".build/release/flashinfer-bench")
p.add_argument("--llama-bench", default=shutil.which("llama-bench")); p.add_argument("--record", action="store_true")
a = p.parse_args()
measure.need_fio()
if not a.llama_bench: print(measure.LLAMA_HINT, file=sys.stderr)
limits = a.limits.split(",")
pages = "huge" if measure.huge_pages() else "small"

def ours(*arguments, limit=None):
    return measure.ours(a.bench, *arguments, "--threads", a.threads, limit=limit)

def llama(gguf, *arguments, limit=None):
    return measure.llama(a.llama_bench, gguf, *arguments, threads=a.threads, limit=limit)

def budget(limit):
    """What of a control group's limit is ours to plan with: the rest is the kernel's bookkeeping."""
    return f"{(byte_count(limit) >> 20) - 64}MiB"

def report(command, *values):
    small = "small" in command
    record.report(f"benchmarks/dense.py {command}", *values, a.record, model=os.path.basename(a.small_image if small else a.image))

def ratio(x, y): return None if x is None or y is None else x / y

def rounds(work):
    rows = []
    for number in range(a.rounds):
        rows.append(work())
        print(f"round {number + 1}: " + ", ".join(f"{k} {v:.4g}" for k, v in rows[-1].items() if v is not None), file=sys.stderr, flush=True)
    return lambda key: [row[key] for row in rows]

def resident(command, image, gguf, tokens, floor, random):
    def work():
        own = ours("decode", image, "--tokens", tokens, "--dram", *(["--random-tokens", 1] if random else []))
        peer = llama(gguf, "-p", "0", "-n", str(tokens))
        dram = ours("decode", image, "--tokens", tokens, "--dram", *(["--random-tokens", 1] if random else [])) if random else own
        speed = (own["decodeTokensPerSecond"] + dram["decodeTokensPerSecond"]) / 2
        return {"speed": speed, "peer": peer, "ratio": ratio(speed, peer), "active": own["activeBytesPerSecond"],
                "dram": own["dramBytesPerSecond"], "share": own["activeBytesPerSecond"] / own["dramBytesPerSecond"]}
    row = rounds(work)
    report(command, "decode", row("speed"), "tokens/s", "DRAM", "resident")
    report(command, "llama.cpp decode", row("peer"), "tokens/s", "", "resident")
    report(command, "decode / llama.cpp", row("ratio"), "", floor, "resident")
    if random: report(command, "weights read / DRAM bandwidth", row("share"), "", 0.95, "resident")

def prefill(command, image, gguf, floor, repeats):
    def work():
        own = ours("prefill", image, "--tokens", 512, "--repeat", repeats)["prefillTokensPerSecond"]
        peer = llama(gguf, "-p", "512", "-n", "0")
        return {"speed": own, "peer": peer, "ratio": ratio(own, peer)}
    row = rounds(work)
    report(command, "prefill 512", row("speed"), "tokens/s", "", "resident")
    report(command, "llama.cpp prefill 512", row("peer"), "tokens/s", "", "resident")
    report(command, "prefill 512 / llama.cpp", row("ratio"), "", floor, "resident")

def limited():
    for limit, floor in zip(limits, [2.2, 3.2]):
        def work():
            drop(a.image)
            before = fio(a.image)
            own = ours("decode", a.image, "--tokens", a.tokens, "--warmup", 2, "--random-tokens", 1, "--ram", budget(limit),
                       limit=byte_count(limit))
            drive = (before + fio(a.image)) / 2
            peer = llama(a.gguf, "-p", "0", "-n", "3", limit=byte_count(limit))
            speed = own["decodeTokensPerSecond"]
            return {"speed": speed, "read": own["kernelReadBytesPerSecond"], "drive": drive, "share": own["kernelReadBytesPerSecond"] / drive,
                    "waiting": own["driveShare"], "products": own["productsShare"], "peer": peer, "ratio": ratio(speed, peer)}
        row = rounds(work)
        command = f"limited {limit}"
        report(command, "decode", row("speed"), "tokens/s", "drive", "cold, direct")
        report(command, "bytes read per second / fio", row("share"), "", (0.95, f"fio 1 MiB x 32, {pages} pages"), "cold, direct")
        report(command, "share of the time that waits for the drive", row("waiting"), "", 1, "cold, direct")
        report(command, "llama.cpp decode", row("peer"), "tokens/s", "", "cold, mmap")
        report(command, "decode / llama.cpp", row("ratio"), "", floor, "cold")

def prefill_limited():
    def work():
        whole = ours("prefill", a.image, "--tokens", 512)
        drop(a.image)
        part = ours("prefill", a.image, "--tokens", 512, "--ram", budget(limits[0]), limit=byte_count(limits[0]))
        return {"resident": whole["prefillTokensPerSecond"], "limited": part["prefillTokensPerSecond"],
                "ratio": part["prefillTokensPerSecond"] / whole["prefillTokensPerSecond"]}
    row = rounds(work)
    command = f"prefill-limited {limits[0]}"
    report(command, "prefill 512", row("limited"), "tokens/s", "resident", "direct")
    report(command, "prefill 512 / resident", row("ratio"), "", 0.9, "direct")

def start():
    for tokens in [4, 512]:
        def work():
            drop(a.image)
            before = fio(a.image)
            drop(a.image)
            own = ours("prefill", a.image, "--tokens", tokens, "--repeat", 0, "--ram", budget(limits[0]), limit=byte_count(limits[0]))
            drive = (before + fio(a.image)) / 2
            whole = ours("prefill", a.image, "--tokens", tokens)
            reading, computing = own["kernelReadBytes"] / drive, tokens / whole["prefillTokensPerSecond"]
            return {"first": own["timeToFirstTokenSeconds"], "reading": reading, "computing": computing,
                    "ratio": own["timeToFirstTokenSeconds"] / max(reading, computing)}
        row = rounds(work)
        command = f"start {limits[0]}, {tokens} tokens"
        reading, computing = statistics.median(row("reading")), statistics.median(row("computing"))
        limit = (max(reading, computing), f"max of reading {reading:.3g} s, computing {computing:.3g} s")
        report(command, "time to first token", row("first"), "s", limit, "cold, direct")
        report(command, "time to first token / limit", row("ratio"), "", (1.2, "at most"), "cold, direct")

def smallest():
    refusal = subprocess.run([a.bench, "decode", a.image, "--context", "512", "--ram", "1MiB", "--threads", str(a.threads)],
                             capture_output=True, text=True).stderr
    found = re.search(r"smallest that works here is ([0-9.]+ ?[KMG]iB)", refusal)
    if not found: sys.exit(f"no smallest budget in: {refusal}")
    least = found.group(1).replace(" ", "")
    report("smallest", "smallest budget", [byte_count(least) / 2**20], "MiB", 200, "")
    for ram in [least, "200MiB"]:
        def work():
            drop(a.image)
            before = fio(a.image)
            own = ours("decode", a.image, "--tokens", 4, "--warmup", 1, "--random-tokens", 1, "--context", 512, "--ram", ram)
            drive = (before + fio(a.image)) / 2
            return {"speed": own["decodeTokensPerSecond"], "share": own["kernelReadBytesPerSecond"] / drive, "peak": own["peakResidentBytes"]}
        row = rounds(work)
        report(f"smallest {ram}", "decode", row("speed"), "tokens/s", "drive", "cold, direct")
        report(f"smallest {ram}", "bytes read per second / fio", row("share"), "", 0.9 if ram == "200MiB" else "", "cold, direct")
        report(f"smallest {ram}", "peak resident / budget", [v / byte_count(ram) for v in row("peak")], "", 1, "")

names = NAMES if "all" in a.names else a.names
for name in names:
    if name == "resident": resident(name, a.image, a.gguf, 16, 0.97, True)
    elif name == "resident-small": resident(name, a.small_image, a.small_gguf, 64, 1.8, False)
    elif name == "prefill": prefill(name, a.image, a.gguf, 2.0, 1)
    elif name == "prefill-small": prefill(name, a.small_image, a.small_gguf, 5.0, 10)
    elif name == "limited": limited()
    elif name == "prefill-limited": prefill_limited()
    elif name == "start": start()
    elif name == "smallest": smallest()
