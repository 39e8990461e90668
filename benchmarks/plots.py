"""Draws docs/plots; tools/plots calls it.

What was measured comes from the rows of results.tsv that are valid, with the range of their rounds as bars. A limit is
drawn only where fio read into huge pages: into small ones it is slower than we are, and limits nothing. What is
simulated says so and comes from flashinfer-bench in-storage.
"""
import argparse, json, os, re, subprocess
import matplotlib
matplotlib.use("svg")
matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text, and files small
from matplotlib import pyplot, ticker
import measure, record

FOLDER = os.path.join(record.FOLDER, "..", "docs", "plots")
BENCH = os.path.join(record.FOLDER, "..", ".build", "release", "flashinfer-bench")
MODELS = {"8b.bin": "8B shape in Q4_0 (4.06 GiB, generated weights)", "SmolLM2-135M-Instruct.Q4_1.bin": "SmolLM2-135M-Instruct in Q4_1"}

def rows(command, figure=""):
    """Valid rows of commands and figures that begin so."""
    return [row for row in record.valid_rows() if row["command"].startswith(command) and re.match(figure, row["figure"])]

def title(axes, text, used):
    """What, then of which model, on which machine, when."""
    dates, models = sorted({row["date"] for row in used}), {row["model"] for row in used}
    model = ", ".join(MODELS.get(name, name) for name in models)
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    axes.set_title(f"{text}: {model}\n{used[0]['machine']}; {when}", fontsize=9)

def series(axes, points, style, label, gap=None, **options):
    """Points of (x, row), with the range of the rounds where it is known; not joined where more than `gap` lies between."""
    points = sorted(points, key=lambda point: point[0])
    if not points: return
    ends = [i for i in range(1, len(points)) if gap and points[i][0] - points[i - 1][0] > gap]
    for end in reversed(ends):
        series(axes, points[end:], style, None, **options)
        points = points[:end]
    low = [row["value"] - row["min"] if row["min"] is not None else 0 for _, row in points]
    high = [row["max"] - row["value"] if row["max"] is not None else 0 for _, row in points]
    axes.errorbar([x for x, _ in points], [row["value"] for _, row in points], yerr=[low, high], fmt=style, capsize=3, markersize=4,
                  linewidth=1.2, label=label, **options)

def limits(axes, points, **options):
    """The limits of points, where they are some."""
    points = sorted((x, row["limit"]) for x, row in points if row["limit"] and "huge pages" in row["against"])
    if points: axes.plot(*zip(*points), "x:", markersize=4, label="limit: fio's bandwidth ÷ bytes read for a token", **options)

def save(figure, name):
    os.makedirs(FOLDER, exist_ok=True)
    path = os.path.join(FOLDER, name + ".svg")
    matplotlib.rcParams["svg.hashsalt"] = name
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    print(os.path.relpath(path))

def plain(axis):
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())

def decode_budget():
    def gibibytes(row): return measure.byte_count(row["budget"]) / 2**30
    def of(command, figure): return [(gibibytes(row), row) for row in rows(command, figure)]
    sweep, limited = "benchmarks/sweep.py", "benchmarks/dense.py limited"
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    ours = of(sweep, "decode$")
    series(axes, ours, "o-", "measured", 1.5, color="tab:blue")
    series(axes, of(limited, "decode$"), "D", "measured, rounds in turn with llama.cpp", color="tab:blue", markerfacecolor="white")
    series(axes, of(sweep, "predicted decode$"), "x:", "predicted by --plan", 1.5, color="tab:orange")
    series(axes, of(sweep, "llama.cpp decode$"), "s-", "llama.cpp, memory-mapped, same control group", 1.5, color="tab:red")
    series(axes, of(limited, "llama.cpp decode$"), "s", "llama.cpp, rounds in turn with us", color="tab:red", markerfacecolor="white")
    limits(axes, ours, color="black")
    axes.set(xlabel="memory budget, GiB", ylabel="decoded tokens per second", yscale="log", xlim=(0, None))
    axes.set_yticks([0.2, 0.5, 1, 2, 5, 10]); plain(axes.yaxis)
    axes.grid(alpha=0.3); axes.legend(fontsize=8)
    title(axes, "Decoding in less memory than the model", [row for _, row in ours])
    save(figure, "decode-budget")

def kv_context():
    command = "benchmarks/keys_and_values.py context"
    lines = {}
    for row in rows(command, r"decode at depth \d+$"):
        lines.setdefault(row["budget"], []).append((int(row["figure"].split()[-1]), row))
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    sizes = sorted(lines, key=lambda budget: measure.byte_count(budget.split()[-1]) if budget else 1 << 60, reverse=True)
    for budget in sizes:
        series(axes, lines[budget], "o-", f"--kv-ram {budget.split()[-1]}" if budget else "all in memory")
        limits(axes, lines[budget], color=axes.lines[-1].get_color())
    peers = [(int(row["figure"].split()[-1]), row) for row in rows("benchmarks/keys_and_values.py depth", r"llama.cpp decode at depth \d+$")]
    series(axes, peers, "s", "llama.cpp, all in memory", color="black")
    used = [row for points in lines.values() for _, row in points]
    depths = sorted({depth for points in lines.values() for depth, _ in points})
    axes.set_xscale("log", base=2); axes.set_yscale("log")
    axes.set_xticks(depths, [f"{d}" if d < 1024 else f"{d / 1024:g}K" for d in depths])
    axes.set_yticks([2, 5, 10, 20, 50, 100, 200, 400]); plain(axes.yaxis); axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set(xlabel="context, tokens", ylabel="decoded tokens per second")
    axes.grid(alpha=0.3); axes.legend(fontsize=8)
    title(axes, "Keys and values in memory and on the drive", used)
    save(figure, "kv-context")

def load():
    used = [row for row in rows("benchmarks/load.py 8b.bin", "load,") if "huge pages" in row["against"]]
    names = [row["figure"].removeprefix("load, ") for row in used]
    figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    places = range(len(used))
    axes.barh([p - 0.2 for p in places], [row["value"] / 1e9 for row in used], 0.36, color="tab:blue", label="flashinfer-bench load")
    axes.barh([p + 0.2 for p in places], [row["limit"] / 1e9 for row in used], 0.36, color="tab:gray", label="fio, huge pages")
    axes.set_yticks(places, names); axes.invert_yaxis()
    axes.set(xlabel="GB/s, medians (block size × reads in flight)")
    axes.grid(alpha=0.3, axis="x"); axes.legend(fontsize=8)
    axes.set_title(f"Reading a file, beside fio\n{used[0]['machine']}; {used[0]['date']}", fontsize=9)
    save(figure, "load")

CELLS = [
    ("hostDense", "host, dense", "tab:blue", "-"), ("hostSparse", "host, sparse", "tab:blue", "--"),
    ("inStorageDense", "in-storage, dense", "tab:red", "-"), ("inStorageSparse", "in-storage, sparse", "tab:red", "--"),
    ("memoryDense", "host memory, dense", "tab:gray", "-"), ("memorySparse", "host memory, sparse", "tab:gray", "--"),
]
MACHINES = {"paper": "drive and host of arXiv 2409.04992", "2026": "drive and host of 2026", "laptop": "drive and laptop of 2026"}

def panel(axes, sweep):
    for key, label, color, style in CELLS:
        points = [(p["value"], p[key]) for p in sweep["points"] if p[key] is not None]
        if points: axes.plot(*zip(*points), "o" + style, color=color, markersize=3, label=label)
    values = [p["value"] for p in sweep["points"]]
    if sweep["name"] != "link": axes.set_xscale("log", base=2)
    axes.set_xticks(values, [f"{v:.0f}" if v < 2048 else f"{v / 1024:.0f}K" for v in values])
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5))); plain(axes.yaxis)
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_title(sweep["name"].capitalize(), fontsize=10)
    axes.set_xlabel(sweep["unit"]); axes.grid(alpha=0.3)

def in_storage():
    for machine, name in MACHINES.items():
        out = subprocess.run([BENCH, "in-storage", "--explore", "--machine", machine, "--json"], check=True, capture_output=True, text=True).stdout
        figure, grid = pyplot.subplots(2, 3, figsize=(12, 7.4))
        for axes, sweep in zip(grid.flat, json.loads(out)["sweeps"]): panel(axes, sweep)
        for axes in grid[:, 0]: axes.set_ylabel("decoded tokens per second, simulated")
        handles = {}
        for axes in grid.flat:
            for handle, label in zip(*axes.get_legend_handles_labels()): handles.setdefault(label, handle)
        note = "\nThe host is far too fast at small batches, which it caches: not to be quoted (docs/in-storage.md)" if machine == "paper" else ""
        figure.suptitle(f"Simulated, not measured: {name}; Llama 3 8B, 32K tokens, batch 32, one drive, unless swept{note}", fontsize=11)
        figure.legend(handles.values(), handles.keys(), ncols=6, loc="lower center", fontsize=9)
        figure.tight_layout(rect=(0, 0.04, 1, 1))
        save(figure, f"in-storage-{machine}")

DRAWINGS = {"decode-budget": decode_budget, "kv-context": kv_context, "load": load, "in-storage": in_storage}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(DRAWINGS))
    names = parser.parse_args().names
    for name in names:
        if name not in DRAWINGS: parser.error(f"{name} is none of {', '.join(DRAWINGS)}")
    for name in names or DRAWINGS: DRAWINGS[name]()
