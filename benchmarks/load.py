#!/usr/bin/env python3
"""Reading speed of `flashinfer-bench load` against fio, in turn in one go.

usage: load.py FILE [--rounds 5] [--seconds 2] [--record]

Each round runs fio, our bench and fio again at every point, with direct reads through io_uring; the
figure is the median of the rounds' ratios of ours to the mean of fio's two. FILE should be larger than
any cache below the operating system. Needs fio, which reads into small pages where our bench gets huge
ones; to have both alike, reserve some as root before and give them back after:
  echo 40 > /proc/sys/vm/nr_hugepages; load.py …; echo 0 > /proc/sys/vm/nr_hugepages
"""
import argparse, json, os, shutil, statistics, subprocess, sys
from record import record

# block size, queue depth, whether offsets are random
POINTS = [("1MiB", 16, False), ("256KiB", 32, False), ("1MiB", 1, False), ("32KiB", 32, True), ("4KiB", 32, True)]

def huge_pages():
    """fio's option for memory like ours, where enough huge pages are reserved."""
    fields = dict(line.split(":") for line in open("/proc/meminfo"))
    free = int(fields.get("HugePages_Free", "0")) * int(fields.get("Hugepagesize", "0 kB").split()[0])
    return ["--iomem=mmaphuge"] if free >= 72 << 10 else []

def fio(path, block, depth, random, seconds):
    """Bytes per second of direct reads."""
    out = subprocess.run(["fio", "--name=r", f"--filename={path}", f"--rw={'randread' if random else 'read'}",
                          f"--bs={block.removesuffix('iB')}", f"--iodepth={depth}", "--direct=1", "--ioengine=io_uring",
                          "--readonly", f"--runtime={seconds}", "--time_based", "--norandommap", "--fixedbufs=1",
                          "--output-format=json", *huge_pages()], capture_output=True, text=True, check=True).stdout
    return json.loads(out)["jobs"][0]["read"]["bw_bytes"]

def ours(bench, path, block, depth, random, seconds):
    out = subprocess.run([bench, "load", path, "--block-size", block, "--queue-depth", str(depth), "--seconds", str(seconds),
                          "--io", "uring", "--json", *(["--random"] if random else [])],
                         capture_output=True, text=True, check=True).stdout
    return {f["name"]: f["value"] for f in json.loads(out)["figures"]}

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file"); p.add_argument("--rounds", type=int, default=5); p.add_argument("--seconds", type=int, default=2)
    p.add_argument("--bench", default=".build/release/flashinfer-bench"); p.add_argument("--record", action="store_true")
    a = p.parse_args()
    if not shutil.which("fio"): sys.exit("fio is needed: apt-get install fio")
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
            note = f"{label}, fio with {pages} pages, median of {a.rounds} rounds"
            record(command, "load", speed, "B/s", f"{peer:.4g} (fio)", "direct", note)
            record(command, "load / fio", ratio, "", "0.97", "direct", note)
    sys.exit(0 if worst >= 0.97 else 1)

if __name__ == "__main__": main()
