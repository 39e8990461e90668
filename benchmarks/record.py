"""Appends measurements to results.tsv: when, which commit and machine, value, limit, cache state."""
import datetime, os, platform, statistics, subprocess

FOLDER = os.path.dirname(os.path.abspath(__file__))
COLUMNS = ["date", "commit", "machine", "command", "figure", "value", "unit", "limit", "cache", "note"]

def machine():
    """Processor, core count and memory of this machine, as a reader would name them."""
    name = platform.machine()
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            name = line.split(":")[1].strip()
            break
    memory = int(open("/proc/meminfo").readline().split()[1]) >> 20
    return f"{name}, {os.cpu_count()} cores, {memory} GiB, Linux {platform.release().split('-')[0]}"

def commit():
    def git(*arguments):
        return subprocess.run(["git", "-C", FOLDER, *arguments], capture_output=True, text=True).stdout.strip()
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":!results.tsv")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")

def record(command, figure, value, unit, limit="", cache="", note=""):
    """Adds one row; `limit` says what the value is held against."""
    path = os.path.join(FOLDER, "results.tsv")
    row = [datetime.date.today().isoformat(), commit(), machine(), command, figure, f"{value:.6g}" if isinstance(value, float) else str(value), unit,
           f"{limit:.6g}" if isinstance(limit, float) else str(limit), cache, note]
    is_new = not os.path.exists(path)
    with open(path, "a") as out:
        if is_new:
            out.write("\t".join(COLUMNS) + "\n")
        out.write("\t".join(row) + "\n")

def report(command, figure, values, unit, limit, cache, recording, note=""):
    """Prints, and where `recording` records, the median of what is there; rounds without a peer hold None."""
    values = [v for v in values if v is not None]
    if not values: return
    value, spread = statistics.median(values), f"{min(values):.3g} to {max(values):.3g}"
    print(f"{command.removeprefix('benchmarks/')}: {figure} = {value:.4g} {unit} ({spread}; held against: {limit})", flush=True)
    if recording:
        record(command, figure, value, unit, limit, cache, "; ".join(filter(None, [f"median of {len(values)} rounds, {spread}", note])))
