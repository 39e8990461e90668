#!/usr/bin/env python3
"""Reading speed of `flashinfer-bench load` against fio, in turn in one go.

usage: load.py FILE [--rounds 5] [--seconds 2] [--record]
       load.py FOLDER --clients [--rounds 5] [--seconds 2] [--record]

Each round runs fio, our bench and fio again at every point, with direct reads through io_uring; the
figure is the median of the rounds' ratios of ours to the mean of fio's two. FILE should be larger than
any cache below the operating system. Needs fio, which reads into small pages where our bench gets huge
ones; to have both alike, reserve some as root before and give them back after:
  echo 40 > /proc/sys/vm/nr_hugepages; load.py …; echo 0 > /proc/sys/vm/nr_hugepages

load.py FOLDER --clients compares the public loader in Swift, C and Python with fio, `mmap`, `read` and the package
safetensors (pip install safetensors) instead, in turn and cold, on files that it writes to FOLDER (8 GiB); it needs
what tools/test installs, and control groups for the comparison in a quarter of the file.
"""
import argparse, os, statistics, sys
import load_clients, measure
from measure import fio, huge_pages, need_fio
from record import record

# block size, queue depth, whether offsets are random
POINTS = [("1MiB", 16, False), ("256KiB", 32, False), ("1MiB", 1, False), ("32KiB", 32, True), ("4KiB", 32, True)]

def ours(bench, path, block, depth, random, seconds):
    return measure.ours(bench, "load", path, "--block-size", block, "--queue-depth", depth, "--seconds", seconds,
                        "--io", "uring", *(["--random"] if random else []))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file"); p.add_argument("--rounds", type=int, default=5); p.add_argument("--seconds", type=int, default=2)
    p.add_argument("--bench", default=".build/release/flashinfer-bench"); p.add_argument("--record", action="store_true")
    p.add_argument("--clients", action="store_true"); p.add_argument("--python", default=".build/python/bin/python3")
    a = p.parse_args()
    need_fio()
    if a.clients: sys.exit(load_clients.main(a.file, a.rounds, a.seconds, a.bench, a.python, a.record))
    pages = "huge" if huge_pages() else "small"
    print(f"fio reads into {pages} pages", file=sys.stderr)
    rows = {point: [] for point in POINTS}
    for number in range(a.rounds):
        for point in POINTS:
            before = fio(a.file, *point, a.seconds)
            figures = ours(a.bench, a.file, *point, a.seconds)
            after = fio(a.file, *point, a.seconds)
            peer = (before + after) / 2
            rows[point].append((figures["loadBytesPerSecond"], peer, figures["cpuSecondsPerGigabyte"]))
            print(f"round {number + 1}, {point}: ours {figures['loadBytesPerSecond'] / 1e9:.3f} GB/s, "
                  f"fio {before / 1e9:.3f} and {after / 1e9:.3f}", file=sys.stderr)
    name = os.path.basename(a.file)
    worst = None
    for (block, depth, random), values in rows.items():
        ratio = statistics.median(o / f for o, f, _ in values)
        worst = ratio if worst is None else min(worst, ratio)
        speed = statistics.median(o for o, _, _ in values)
        peer = statistics.median(f for _, f, _ in values)
        cpu = statistics.median(c for _, _, c in values)
        label = f"{block} x {depth}{' random' if random else ''}"
        print(f"{label}: ours {speed / 1e9:.3f} GB/s, fio {peer / 1e9:.3f} GB/s, ratio {ratio:.3f} (floor 0.97), {cpu:.4f} s of processor per GB")
        if a.record:
            command = f"benchmarks/load.py {name}"
            against = f"fio, {pages} pages"
            record(command, f"load, {label}", speed, "B/s", (peer, against), "direct", values=[o for o, _, _ in values])
            record(command, f"load / fio, {label}", ratio, "", (0.97, against), "direct", values=[o / f for o, f, _ in values])
    sys.exit(0 if worst >= 0.97 else 1)

if __name__ == "__main__": main()
