#!/usr/bin/env python3
"""Where attention inside a drive pays, by the timing model: draws the sweeps of flashinfer-bench in-storage.

usage: in_storage.py [--bench .build/release/flashinfer-bench]
       in_storage.py --paper [--rounds 5] [--record]
       in_storage.py --sparf MODEL TEXT [--context 512] [--chunks 4] [--record]

Writes plots/in-storage-{paper,2026,laptop}.svg: decoded tokens per second against context, batch,
channels, link, grouped queries and drives, for host and in-storage, dense and sparse, and for keys and
values in host memory where they fit. Nothing is measured; the model is docs/in-storage.md. With --sparf it measures
what the functional drive's sparse attention costs a model in a text, beside dense attention. With --paper it tells how far
published figures and the model's lie apart, inputs left out, and what simulating all of them takes: OPT-13B at batch
256 with 2,048 tokens on 20 drives, dense and sparse, is a part of that.
"""
import argparse, json, os, subprocess, sys, time
from record import record, report

FOLDER = os.path.dirname(os.path.abspath(__file__))
CELLS = [
    ("hostDense", "host, dense", "tab:blue", "-"), ("hostSparse", "host, sparse", "tab:blue", "--"),
    ("inStorageDense", "in-storage, dense", "tab:red", "-"), ("inStorageSparse", "in-storage, sparse", "tab:red", "--"),
    ("memoryDense", "host memory, dense", "tab:gray", "-"), ("memorySparse", "host memory, sparse", "tab:gray", "--"),
]

def plot(sweeps, path, title):
    try:
        import matplotlib
    except ImportError:
        sys.exit("no plot: matplotlib is missing (apt-get install python3-matplotlib, or pip install matplotlib)")
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "in-storage"
    from matplotlib import pyplot
    figure, grid = pyplot.subplots(2, 3, figsize=(12, 7))
    for axes, sweep in zip(grid.flat, sweeps):
        for key, label, color, style in CELLS:
            points = [(p["value"], p[key]) for p in sweep["points"] if p[key] is not None]
            if points: axes.plot(*zip(*points), "o" + style, color=color, markersize=3, label=label)
        values = [p["value"] for p in sweep["points"]]
        if sweep["name"] != "link": axes.set_xscale("log", base=2)
        axes.set_xticks(values, [f"{v:.0f}" if v < 10000 else f"{v / 1024:.0f}K" for v in values])
        axes.minorticks_off()
        axes.set(xlabel=sweep["unit"], yscale="log"); axes.grid(alpha=0.3)
    for axes in grid[:, 0]: axes.set_ylabel("decoded tokens per second")
    handles = {}
    for axes in grid.flat:
        for handle, label in zip(*axes.get_legend_handles_labels()): handles.setdefault(label, handle)
    figure.suptitle(title)
    figure.legend(handles.values(), handles.keys(), ncols=6, loc="lower center", fontsize=9)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(path, metadata={"Date": None})
    print(path)

def sparf(a):
    """What SparF costs at each share; the same bits whenever it runs, so one round."""
    model, text = a.sparf
    command = [a.bench, "sparf", model, text, "--context", str(a.context), "--chunks", str(a.chunks), "--json"]
    figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["figures"]
    row = f"benchmarks/in_storage.py --sparf {os.path.basename(model)} --context {a.context} --chunks {a.chunks}"
    dense = next(f["value"] for f in figures if f["name"] == "densePerplexity")
    for figure in figures:
        name, value, unit = figure["name"], figure["value"], figure["unit"]
        print(f"{name}: {value:.4g} {unit}", flush=True)
        if a.record: record(row, name, value, unit, dense if name.startswith("perplexity ") else "", "resident")

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
    figures = [f for f in json.loads(outs[0])["figures"] if f["kind"] != "input"]
    for f in figures:
        f["error"] = f["modelled"] / f["published"] - 1
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
    p.add_argument("--sparf", nargs=2, metavar=("MODEL", "TEXT")); p.add_argument("--record", action="store_true")
    p.add_argument("--paper", action="store_true"); p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--context", type=int, default=512); p.add_argument("--chunks", type=int, default=4)
    a = p.parse_args()
    if a.sparf: return sparf(a)
    if a.paper: return paper(a)
    os.makedirs(os.path.join(FOLDER, "plots"), exist_ok=True)
    for machine, title in [("paper", "drive and host of arXiv 2409.04992"), ("2026", "drive and host of 2026"), ("laptop", "drive and laptop of 2026")]:
        command = [a.bench, "in-storage", "--explore", "--machine", machine, "--json"]
        sweeps = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["sweeps"]
        plot(sweeps, os.path.join(FOLDER, "plots", f"in-storage-{machine}.svg"),
             f"Llama 3 8B, 32K tokens, batch 32, one drive; {title}")

if __name__ == "__main__": main()
