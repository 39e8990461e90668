#!/usr/bin/env python3
"""How much faster are several sequences in one sweep than one at a time, and how near is that to what the machine allows?

usage: batch.py MODEL [--ram 2200MiB] [--depth 128] [--sequences 1,8,32,64] [--tokens 8] [--rounds 3] [--gguf FILE]
       [--llama-batched-bench PATH] [--no-resident] [--record]

Every round decodes --tokens tokens of 1, 8, … sequences, each of which begins with --depth random tokens, in turn; each number is
planned by itself within --ram, and one sequence also in a plan for the most of them, whose memory it has to itself. The limit of n sequences is n ÷ the longer of (streamed weights ÷ drive) and of what n rows take
with all weights in memory, which the same round measures (--ram all). fio measures the drive before and after. Of a mixture of
experts it also says how many experts a sweep used, how many of them were in memory, and what was read; --no-resident leaves the
measurements in memory out, for a model that does not fit. With
llama-batched-bench the same numbers of sequences are decoded by llama.cpp from GGUF, all in memory, beside ours in memory.
"""
import argparse, json, os, shutil, subprocess, sys
import measure
from record import report

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("model"); p.add_argument("--ram", default=""); p.add_argument("--depth", type=int, default=128)
p.add_argument("--sequences", default="1,8,32,64"); p.add_argument("--tokens", type=int, default=8); p.add_argument("--rounds", type=int, default=3)
p.add_argument("--bench", default=".build/release/flashinfer-bench"); p.add_argument("--gguf", default="")
p.add_argument("--llama-batched-bench", default=shutil.which("llama-batched-bench")); p.add_argument("--record", action="store_true")
p.add_argument("--no-resident", action="store_true")
a = p.parse_args()
numbers = [int(n) for n in a.sequences.split(",")]
threads = len(os.sched_getaffinity(0))

def ours(count, ram, planned=None):
    measure.drop()
    return measure.ours(a.bench, "decode", a.model, "--sequences", count, "--planned", planned or count, "--depth", a.depth, "--tokens", a.tokens, "--warmup", 2,
                        "--random-tokens", 1, *(["--ram", ram] if ram else []))

def peer(count):
    """llama.cpp's tokens per second of all sequences together, or None."""
    if not (a.gguf and a.llama_batched_bench): return None
    out = measure.run([a.llama_batched_bench, "-m", a.gguf, "-c", str(count * (a.depth + a.tokens + 8)), "-npp", str(a.depth), "-ntg",
                       str(a.tokens), "-npl", str(count), "-t", str(threads), "-b", "512", "--output-format", "jsonl"])
    return next(json.loads(line)["speed_tg"] for line in out.splitlines() if line.startswith("{"))

rows = {n: {} for n in numbers}
def add(row, **values):
    for key, value in values.items(): row.setdefault(key, []).append(value)

for number in range(a.rounds):
    drive = measure.fio(a.model) if a.ram else None
    for n, row in rows.items():
        resident = None if a.no_resident else ours(n, "")["totalTokensPerSecond"]
        found = ours(n, a.ram) if a.ram else None
        if resident:
            other = peer(n)
            add(row, resident=resident, peer=other, overPeer=other and resident / other)
        if found:
            add(row, total=found["totalTokensPerSecond"], bytes=found["bytesPerToken"], peak=found["peakResidentBytes"])
            experts = found.get("expertBytesPerSweep")
            if resident:
                sweep = max((found["streamedBytes"] + (experts or 0)) / drive, n / resident)
                add(row, share=found["totalTokensPerSecond"] * sweep / n)
            if experts is not None:
                add(row, experts=found["expertsPerSweep"], inMemory=found["expertResidentShare"], expertBytes=experts,
                    readRatio=found["expertReadRatio"])
    if a.ram and numbers[-1] > 1:
        lent = ours(1, a.ram, planned=numbers[-1])
        add(rows[numbers[-1]], lentTotal=lent["totalTokensPerSecond"], lentBytes=lent["bytesPerToken"])
    for n, row in rows.items():
        if not a.no_resident: add(row, residentRatio=row["resident"][-1] / rows[numbers[0]]["resident"][-1])
        if a.ram: add(row, ratio=row["total"][-1] / rows[numbers[0]]["total"][-1])

for n, row in rows.items():
    command = f"benchmarks/batch.py {os.path.basename(a.model)} --depth {a.depth}" + (f" --ram {a.ram}" if a.ram else "")
    def say(figure, key, unit, limit, budget=None):
        if key in row: report(command, f"{n}.{figure}", row[key], unit, limit, "cold" if budget is None and a.ram else "resident", a.record,
                              f"{n} sequences, {threads} threads", budget=budget)
    say("totalTokensPerSecond", "total", "tokens/s", "")
    # Of experts, each row more needs more bytes: with uniform routing of 8 of 128, 16 rows 10 times those of one, 64 rows 16 times.
    least = {16: 1.4, 64: 3.5}.get(n) if "experts" in row and numbers[0] == 1 else None
    say(f"total/{numbers[0]}", "ratio", "of one", (least, "at least") if least else "")
    say("experts per sweep", "experts", "", "")
    say("experts in memory", "inMemory", "of those used", "")
    say("expert bytes per sweep", "expertBytes", "B", "")
    say("expert bytes / those needed and not in memory", "readRatio", "", (1.02, "at most"))
    say("share of the limit", "share", "of the limit", (0.85, "at least"))
    say("bytesPerToken", "bytes", "B", "")
    say("one of them alone: tokensPerSecond", "lentTotal", "tokens/s", "")
    say("one of them alone: bytesPerToken", "lentBytes", "B", "")
    say("peakResidentBytes", "peak", "B", a.ram)
    say("resident totalTokensPerSecond", "resident", "tokens/s", "", "all in memory")
    say(f"resident total/{numbers[0]}", "residentRatio", "of one", "", "all in memory")
    say("resident / llama.cpp", "overPeer", "of llama-batched-bench", (1.4, "at least, of 8"), "all in memory")
