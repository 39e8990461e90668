#!/usr/bin/env python3
"""Reads and extends results.tsv, whose columns README.md explains.

usage: record.py --check [--least 0.03]

--check compares the newest row of each figure with the one before it and prints those that moved by more than
--least, the furthest first; ! stands where the rounds' ranges, as far as they are known, do not meet.
"""
import argparse, csv, datetime, os, platform, re, statistics, subprocess

FOLDER = os.path.dirname(os.path.abspath(__file__))
FILE = os.path.join(FOLDER, "results.tsv")
COLUMNS = ["date", "commit", "machine", "model", "budget", "command", "figure", "value", "unit", "min", "max", "rounds",
           "limit", "against", "cache", "validity", "note"]
# What makes two rows measurements of the same.
KEY = ["machine", "model", "budget", "command", "figure"]
NUMBERS = ["value", "min", "max", "rounds", "limit"]

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

def model_in(command):
    """The file of a model that a command names, or nothing."""
    return next((word for word in command.split() if re.search(r"\.(bin|gguf)$", word)), "")

def budget_in(command):
    """The bounds on memory that a command names: of the process, and of keys and values."""
    found = re.search(r"--(?:ram|limit) (\S+)", command) or re.search(r"\b(\d+[MG]i?B)\b(?!.*--)", command)
    keys = re.search(r"--kv-ram (\S+)", command)
    return ", ".join(filter(None, [found and found.group(1), keys and f"keys and values {keys.group(1)}"]))

def text(value):
    return f"{value:.6g}" if isinstance(value, float) else str(value)

def rows():
    """All rows, oldest first, as dictionaries; numbers as floats, None where there is none."""
    with open(FILE, newline="") as file:
        found = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    for row in found:
        for column in NUMBERS: row[column] = float(row[column]) if row[column] else None
    return found

def valid_rows():
    """Rows that may be quoted and drawn."""
    return [row for row in rows() if row["validity"] == "valid"]

def record(command, figure, value, unit, limit="", cache="", note="", model=None, budget=None, values=()):
    """Adds a row; earlier ones of the same are superseded by it.

    limit is what the value is held against: a number, words for what has none, or a pair of both.
    values are the rounds that value is the median of.
    """
    number, against = limit if isinstance(limit, tuple) else (limit, "") if isinstance(limit, (int, float)) else ("", limit)
    row = dict(date=datetime.date.today().isoformat(), commit=commit(), machine=machine(),
               model=model_in(command) if model is None else model, budget=budget_in(command) if budget is None else budget,
               command=command, figure=figure, value=text(value), unit=unit, limit=text(number), against=against, cache=cache,
               validity="valid", note=note, min="", max="", rounds="")
    if values: row.update(min=text(float(min(values))), max=text(float(max(values))), rounds=str(len(values)))
    lines = open(FILE).read().splitlines() if os.path.exists(FILE) else ["\t".join(COLUMNS)]
    place = COLUMNS.index("validity")
    for index, line in enumerate(lines[1:], 1):
        cells = line.split("\t")
        if cells[place] == "valid" and all(cells[COLUMNS.index(column)] == row[column] for column in KEY):
            cells[place] = "superseded"
            lines[index] = "\t".join(cells)
    lines.append("\t".join(row[column] for column in COLUMNS))
    with open(FILE, "w") as out: out.write("\n".join(lines) + "\n")

def report(command, figure, values, unit, limit, cache, recording, note="", **more):
    """Prints, and where `recording` records, the median of what is there; rounds without a peer hold None."""
    values = [v for v in values if v is not None]
    if not values: return
    value, spread = statistics.median(values), f"{min(values):.3g} to {max(values):.3g}"
    held = " ".join(map(str, limit)) if isinstance(limit, tuple) else limit
    print(f"{command.removeprefix('benchmarks/')}: {figure} = {value:.4g} {unit} ({spread}; held against: {held})", flush=True)
    if recording: record(command, figure, value, unit, limit, cache, note, values=values, **more)

def check(least):
    pairs, last = {}, {}
    for row in rows():
        if row["validity"].startswith("stale"): continue
        key = tuple(row[column] for column in KEY)
        if key in last: pairs[key] = (last[key], row)
        last[key] = row
    moved = []
    for key, (old, new) in pairs.items():
        if old["value"] == new["value"] or not old["value"]: continue
        apart = all(row[end] is not None for row in (old, new) for end in ("min", "max")) and (
            old["max"] < new["min"] or new["max"] < old["min"])
        if abs(new["value"] / old["value"] - 1) > least: moved.append((new["value"] / old["value"], apart, old, new))
    for ratio, apart, old, new in sorted(moved, key=lambda m: -abs(m[0] - 1)):
        print(f"{'!' if apart else ' '} {100 * (ratio - 1):+7.1f} %  {old['value']:.4g} → {new['value']:.4g} {new['unit']}  {new['command']}: "
              f"{new['figure']} ({old['commit']} → {new['commit']})")
    print(f"{len(pairs)} figures measured more than once, {len(moved)} moved by more than {100 * least:g} %, "
          f"{sum(apart for _, apart, _, _ in moved)} out of their rounds' range")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", required=True); parser.add_argument("--least", type=float, default=0.03)
    check(parser.parse_args().least)
