#!/usr/bin/env python3
"""Products with weights of every type: bytes per second of one row against memory, operations per second of many.

usage: products.py [--types Q4_0,IQ2_XXS] [--rows 32,64] [--rounds 5] [--record]

Matrices of 1 GiB are multiplied one after the other (flashinfer-bench products). Each round measures every type
once, so that types are compared in turn. A row's bytes are held against what reading of the same memory gave in the
same run, at most 36 GB/s; --rows against Q4_0's operations, and its time against one row's. --record appends to
results.tsv.
"""
import argparse, json, os, statistics
import measure, record

# The least share of min(memory, 36 GB/s) with one row.
LEAST = {"Q3_K": 0.75, "Q2_K": 0.75, "IQ3_XXS": 0.5, "IQ3_S": 0.5, "TQ1_0": 0.5, "Q1_0": 0.5, "IQ2_XXS": 0.4, "IQ2_XS": 0.4,
         "IQ2_S": 0.4, "IQ1_S": 0.2, "IQ1_M": 0.2}
MOST = 36e9

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--types"); p.add_argument("--rows", default="32,64"); p.add_argument("--rounds", type=int, default=5)
p.add_argument("--memory", default="1GiB"); p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
p.add_argument("--bench", default=".build/release/flashinfer-bench"); p.add_argument("--record", action="store_true")
a = p.parse_args()

many = [int(rows) for rows in a.rows.split(",") if rows]
rounds = {}
for number in range(a.rounds):
    command = [a.bench, "products", "--memory", a.memory, "--threads", str(a.threads), "--repeat", "1", "--json",
               "--rows", ",".join(map(str, [1, *many]))] + (["--type", a.types] if a.types else [])
    figures = json.loads(measure.run(command))["figures"]
    base = {f["name"]: f for f in figures}
    for figure in figures:
        quantity, name = figure["name"].split("/", 1)
        if not many: name += "/1"
        kind, rows = name.split("/")
        row = rounds.setdefault((kind, int(rows)), {})
        def add(key, value): row.setdefault(key, []).append(value)
        if quantity == "productBytesPerSecond":
            add("speed", figure["value"])
            add("share", figure["value"] / min(figure["limit"], MOST))
            add("memory", figure["limit"])
        elif quantity == "productOperationsPerSecond" and rows != "1":
            add("operations", figure["value"])
            peer = base.get(f"{quantity}/Q4_0/{rows}")
            if peer: add("of Q4_0", figure["value"] / peer["value"])
        elif quantity == "productSeconds" and rows != "1":
            add("over one", figure["value"] / base[f"{quantity}/{kind}/1"]["value"])

for (kind, rows), row in rounds.items():
    command = f"benchmarks/products.py {kind}, {rows} {'row' if rows == 1 else 'rows'}"
    def report(figure, key, unit, limit):
        if key in row: record.report(command, figure, row[key], unit, limit, "memory", a.record)
    if rows == 1:
        least = LEAST.get(kind, 0.9)
        memory = statistics.median(row["memory"])
        report("bytes per second", "speed", "B/s", (min(memory, MOST), f"memory {memory / 1e9:.3g} GB/s, at most 36"))
        report("bytes per second / limit", "share", "", (least, "at least"))
    else:
        report("operations per second", "operations", "GOP/s", "")
        report("operations per second / Q4_0's", "of Q4_0", "", (0.8, "at least") if rows >= 64 else "")
        report("time / one row's", "over one", "", "")
