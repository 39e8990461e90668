#!/usr/bin/env python3
"""Attention inside simulated drives: the timing model beside published figures, and what sparse attention costs.

usage: in_storage.py --paper [--rounds 5] [--record]
       in_storage.py --sparf MODEL TEXT [--context 512] [--chunks 4] [--record]

No drive's time is measured; the model is docs/in-storage.md. --paper tells how far published figures and the model's
lie apart, inputs left out, and what simulating all of them takes: OPT-13B at batch 256 with 2,048 tokens on 20 drives,
dense and sparse, is a part of that. --sparf measures what the functional drive's sparse attention costs a model in a
text, beside dense attention. tools/plots draws the sweeps of flashinfer-bench in-storage --explore.
"""
import argparse, json, os, subprocess, sys, time
from record import record, report

def sparf(a):
    """What SparF costs at each share; the same bits whenever it runs, so one round."""
    model, text = a.sparf
    command = [a.bench, "sparf", model, text, "--context", str(a.context), "--chunks", str(a.chunks), "--json"]
    figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["figures"]
    row = f"benchmarks/in_storage.py --sparf {os.path.basename(model)} --context {a.context} --chunks {a.chunks}"
    dense = next(f["value"] for f in figures if f["name"] == "densePerplexity")
    for figure in figures:
        name, value, unit = figure["name"], figure["value"], figure["unit"].replace("1", "")
        if value is None: continue
        print(f"{name}: {value:.4g} {unit}", flush=True)
        if a.record: record(row, name, value, unit, dense if name.startswith("perplexity/") else "", "resident")

def timed(command):
    """A command's output, its seconds and its peak resident bytes, which are never below this interpreter's own."""
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode: sys.exit(f"{' '.join(command)}: ended with {process.returncode}")
    return out, time.monotonic() - start, usage.ru_maxrss << 10

def paper(a):
    """How near the model comes to the paper, the same bits whenever it runs; and the simulator's speed, in rounds."""
    outs, seconds, peaks = zip(*[timed([a.bench, "in-storage", "--paper", "--json"]) for _ in range(a.rounds)])
    command, levels = "benchmarks/in_storage.py --paper", {"device": 0.1, "system": 0.25}
    figures = [f for f in json.loads(outs[0])["comparisons"] if f["kind"] != "input"]
    for f in figures:
        print(f"{f['name']}: {f['level']}, {f['kind']}, published {f['published']:.4g}, modelled {f['modelled']:.4g}, {100 * f['error']:+.1f} %")
    for level, bound in levels.items():
        rows = [f for f in figures if f["level"] == level]
        near, worst = sum(abs(f["error"]) <= bound for f in rows), max(rows, key=lambda f: abs(f["error"]))
        note = f"{near} of {len(rows)}; {sum(f['kind'] == 'predicted' for f in rows)} are predicted, the others constrained; simulated"
        values = [(f"{level} level: figures within {100 * bound:g} %", near / len(rows), 1, note),
                  (f"{level} level: largest error", abs(worst["error"]), bound, f"{worst['name']} ({worst['kind']}); simulated")]
        for figure, value, limit, note in values:
            print(f"{figure}: {value:.4g} ({note})", flush=True)
            if a.record: record(command, figure, value, "", limit, "", note)
    note = "all of --paper, with OPT-13B, batch 256, 2,048 tokens, 20 drives, dense and sparse"
    report(command, "simulator: time", seconds, "s", 30, "", a.record, note)
    report(command, "simulator: peak resident set", peaks, "B", 1 << 30, "", a.record, note)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bench", default=".build/release/flashinfer-bench")
    work = p.add_mutually_exclusive_group(required=True)
    work.add_argument("--sparf", nargs=2, metavar=("MODEL", "TEXT")); work.add_argument("--paper", action="store_true")
    p.add_argument("--record", action="store_true"); p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--context", type=int, default=512); p.add_argument("--chunks", type=int, default=4)
    a = p.parse_args()
    if a.sparf: sparf(a)
    else: paper(a)

if __name__ == "__main__": main()
