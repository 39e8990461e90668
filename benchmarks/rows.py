#!/usr/bin/env python3
"""Rows of a table at random, as an embedding layer needs them, against fio's random reads of the same size.

usage: rows.py FOLDER [--rows 2000] [--depth 32] [--rounds 5] [--seconds 2] [--record]

Writes a table of 4 KiB rows to FOLDER (4 GiB, kept), each of which is a page of the file. Each round runs fio, the C library
and fio again, with direct reads through io_uring, of other rows each time: a virtual machine's host caches those of the
round before. The figure is the median of the rounds' ratios of ours to the mean of fio's two. Needs fio and what
tools/test installs.
"""
import argparse, json, os, statistics, struct, sys, time
import load_clients, measure
from record import record

ROW, TABLE, RAM = 4096, 4 << 30, 128 << 20

def write_table(path):
    """A safetensors file of one tensor whose rows begin at pages; kept from one run to the next."""
    text = json.dumps({"table": {"dtype": "U8", "shape": [TABLE // ROW, ROW], "data_offsets": [0, TABLE]}}).encode()
    text += b" " * (ROW - 8 - len(text))
    if os.path.exists(path) and os.path.getsize(path) == ROW + TABLE: return path
    block = os.urandom(1 << 24)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for _ in range(TABLE // len(block)): out.write(block)
    return path

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder"); p.add_argument("--rows", type=int, default=2000); p.add_argument("--depth", type=int, default=32)
    p.add_argument("--rounds", type=int, default=5); p.add_argument("--seconds", type=int, default=2)
    p.add_argument("--record", action="store_true")
    a = p.parse_args()
    measure.need_fio()
    os.makedirs(a.folder, exist_ok=True)
    path = write_table(f"{a.folder}/rows.safetensors")
    client = load_clients.build_c_client(a.folder, "rows_client")
    ratios, speeds, peers, peak = [], [], [], 0
    for number in range(a.rounds):
        before = measure.fio(path, "4KiB", a.depth, True, a.seconds)
        out = json.loads(measure.run([client, path, str(RAM), str(a.depth), str(a.rows), str(a.seconds), str(time.time_ns())]))
        after = measure.fio(path, "4KiB", a.depth, True, a.seconds)
        speed, peer = out["bytes"] / out["seconds"], (before + after) / 2
        ratios.append(speed / peer); speeds.append(speed); peers.append(peer)
        peak = max(peak, out["peakBytes"])
        print(f"round {number + 1}: {speed / ROW:.0f} rows/s, fio {before / ROW:.0f} and {after / ROW:.0f}", file=sys.stderr)
    ratio = statistics.median(ratios)
    print(f"{a.rows} rows at a time, depth {a.depth}: {statistics.median(speeds) / ROW:.0f} rows/s, "
          f"ratio to fio {ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f}; floor 0.9), "
          f"peak {peak / 2**20:.0f} MiB of {RAM >> 20}")
    if a.record:
        note = f"{a.rows} rows of 4 KiB at a time, depth {a.depth}"
        record("benchmarks/rows.py", "rows", statistics.median(speeds) / ROW, "rows/s", (statistics.median(peers) / ROW, "fio"),
               "direct", note, values=[speed / ROW for speed in speeds])
        record("benchmarks/rows.py", "rows / fio", ratio, "", 0.9, "direct", note, values=ratios)
    sys.exit(0 if ratio >= 0.9 and peak <= RAM else 1)

if __name__ == "__main__": main()
