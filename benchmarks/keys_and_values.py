#!/usr/bin/env python3
"""Keys and values in memory and on a drive: speed against context, the drive's and DRAM's limits, types, policies.

usage: keys_and_values.py context MODEL [--budgets 4MiB,8MiB,16MiB,64MiB] [--least 512] [--most 16384]
       keys_and_values.py attention [--context 32768] [--layers 8]
       keys_and_values.py depth MODEL GGUF [--depth 4096] [--llama-options "-fa 1"]
       keys_and_values.py types MODEL TEXT [--context 2048] [--chunks 8]
       keys_and_values.py policies MODEL TEXT [--kv-ram 16MiB] [--context 8192] [--positions 256]
       keys_and_values.py same MODEL TEXT [--prompts 1000,4000,7800] [--kv-ram 8MiB] [--ram 64MiB,400MiB] [--tokens 64]

  context    decode at depths from --least to --most, doubling, with --kv-ram of each of --budgets and with all in
             memory. The limit is fio's bandwidth before and after ÷ bytes of keys and
             values read per token, and at most what the same depth reached in memory
  attention  no model: attention over a context in memory (÷ DRAM), from the drive (64 MiB, and the least) and mixed
             (half): bytes per second ÷ fio's random reads of a row's size at the same depth; bytes read ÷ the
             least that the budget allows; ÷ the nearer of both limits, the drive's and memory's
  depth      decode and a prompt of 512 after a context ÷ llama.cpp's
  types      perplexity with q8 and q4 ÷ f16's
  policies   agreement with full attention after a document, and what share of its bytes is read
  same       whether flashinfer-run answers greedily with keys and values on the drive, in each budget of --ram, what it
             answers with all in memory, and stays within the budget; exit code 1 where not. --prompts are about so
             many tokens of the text's beginning; rows name how many there were

All take --rounds, --threads, --bench and --record, which appends to results.tsv. Everything of a figure runs in turn
within a round; the figure is the median of the rounds (types, policies and same give the same bits and run once; same
takes --run in place of --bench). What is on a drive is in --folder, where fio's file is too;
all of it is read past the page cache. Other work on the machine falsifies depth most: llama.cpp's threads spin.
context and attention need fio.
"""
import argparse, contextlib, json, os, shlex, shutil, statistics, subprocess, sys, tempfile
import measure
from measure import byte_count, fio
from record import record, report

POLICIES = ["top=1/8", "top=1/4", "sinks=128+1024", "window=1024", "snapkv=1024"]
POSITIONS = 128  # of a row: a layer's part of them, all heads
BYTES_PER_TOKEN = 4.2  # of English text, about

def ours(a, *arguments):
    return measure.ours(a.bench, *arguments, "--threads", a.threads)

@contextlib.contextmanager
def drive_file(folder, size):
    """A file of random bytes for fio on the drive that keys and values go to."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(max(1, size >> 20)): file.write(os.urandom(1 << 20))
        file.flush(); os.fsync(file.fileno())
        yield file.name

def rounds(a, work):
    rows = []
    for number in range(a.rounds):
        rows.append(work())
        print(f"round {number + 1}: " + ", ".join(f"{k} {v:.4g}" for k, v in rows[-1].items() if v is not None), file=sys.stderr, flush=True)
    return lambda key: [row.get(key) for row in rows]

# context

def context_point(a, budget, depth, file):
    """Speed and bytes at a depth, and what the drive would allow; None where the budget is too small."""
    before = fio(file, seconds=1) if budget else None
    options = ["--kv-ram", budget, "--kv-dir", a.folder] if budget else []
    try: own = ours(a, "decode", a.model, "--depth", depth, "--tokens", a.tokens, "--random-tokens", 1, *options)
    except subprocess.CalledProcessError as error:
        if not (budget and "for keys and values is too small" in error.stderr): raise
        print(f"{budget}, depth {depth}: {error.stderr.strip()}", file=sys.stderr)
        return None
    speed, read = own["decodeTokensPerSecond"], own["kvBytesPerToken"]
    if read and not budget: sys.exit(f"depth {depth}: keys and values do not fit into memory; see --most")
    drive = (before + fio(file, seconds=1)) / 2 / read if budget and read else None
    print(f"{budget or 'in memory'}, depth {depth}: {speed:.4g} tokens/s, {read:.4g} B a token"
          + (f", drive's limit {drive:.4g}" if drive else ""), file=sys.stderr, flush=True)
    return {"speed": speed, "read": read, "drive": drive}

def context(a):
    measure.need_fio()
    depths = [a.least]
    while depths[-1] * 2 <= a.most: depths.append(depths[-1] * 2)
    budgets = [None] + sorted(a.budgets.split(","), key=byte_count)
    name = os.path.basename(a.model)
    against = f"fio 1 MiB x 32, {'huge' if measure.huge_pages() else 'small'} pages ÷ bytes a token, or in memory"
    with drive_file(a.folder, 1 << 30) as file:
        for depth in depths:
            rows = {budget: [] for budget in budgets}
            for _ in range(a.rounds):
                for budget in budgets: rows[budget].append(context_point(a, budget, depth, file))
            for budget in budgets:
                points = [(p, whole) for p, whole in zip(rows[budget], rows[None]) if p]
                if not points: continue
                limits = [min(p["drive"], whole["speed"]) for p, whole in points if p["drive"]]
                limit = statistics.median(limits) if limits else None
                speed = statistics.median(p["speed"] for p, _ in points)
                command = f"benchmarks/keys_and_values.py context {name}" + (f" --kv-ram {budget}" if budget else "")
                figure = f"decode at depth {depth}"
                report(command, figure, [p["speed"] for p, _ in points], "tokens/s", "" if limit is None else (limit, against),
                       "direct" if limits else "resident", a.record,
                       f"{statistics.median(p['read'] for p, _ in points):.4g} B of keys and values read a token")
                if limits:
                    report(command, f"{figure} / limit", [p["speed"] / min(p["drive"], whole["speed"]) for p, whole in points if p["drive"]],
                           "", (1, against), "direct", a.record)

# attention

def least_kv_ram(a, shape):
    """The smallest --kv-ram that works, which the refusal of a smaller one names."""
    command = [a.bench, "attention", *map(str, shape), "--kv-ram", "1"]
    return "".join(subprocess.run(command, capture_output=True, text=True).stderr.split()[-2:])

def attention(a):
    measure.need_fio()
    shape = ["--context", a.context, "--layers", a.layers, "--query-heads", a.query_heads, "--kv-heads", a.kv_heads,
             "--head-size", a.head_size]
    row = a.kv_heads * POSITIONS * a.head_size * 4
    block, total = f"{row + 4095 >> 12 << 2}KiB", row * a.layers * -(-a.context // POSITIONS)
    # The least that works has few rows, which cannot fill a drive's queue.
    placements = {"from the drive": "64MiB", "in the least memory": least_kv_ram(a, shape), "mixed": str(total // 2)}
    depths = {}

    def tiered(file, place, whole):
        """A placement's figures by name; fio reads before it as deep as its last round did, and after it."""
        before = fio(file, block, depths[place], True) if place in depths else None
        own = ours(a, "attention", *shape, "--repeat", a.repeats, "--kv-ram", placements[place], "--kv-dir", a.folder)
        depths[place] = max(1, round(own["queueDepth"]))
        after = fio(file, block, depths[place], True)
        peer = after if before is None else (before + after) / 2
        drive, memory = own["driveBytesPerSecond"] / peer, own["keyValueBytesPerSecond"] / whole["keyValueBytesPerSecond"]
        return {"speed": own["keyValueBytesPerSecond"], "read": own["driveBytesPerSecond"], "fio": peer, "depth": own["queueDepth"],
                "drive": drive, "limit": max(drive, memory), "extra": own["readBytesOverBound"], "waiting": own["waitFraction"]}

    # As large as what we read: a host in front of a virtual drive may keep a smaller file.
    with drive_file(a.folder, total) as file:
        def work():
            whole = ours(a, "attention", *shape, "--repeat", a.repeats)
            parts = {place: tiered(file, place, whole) for place in placements}
            return {"speed": whole["keyValueBytesPerSecond"], "share": whole["shareOfMemoryBandwidth"],
                    **{f"{place}: {key}": value for place, part in parts.items() for key, value in part.items()}}
        row_of = rounds(a, work)
    command = "benchmarks/keys_and_values.py attention " + " ".join(map(str, shape))
    report(command, "in memory: keys and values attended over", row_of("speed"), "B/s", "DRAM", "resident", a.record)
    report(command, "in memory: that / DRAM bandwidth", row_of("share"), "", 1, "resident", a.record)
    for place, budget in placements.items():
        of, pages = f"{command} --kv-ram {budget}", "huge" if measure.huge_pages() else "small"
        peer = f"fio {block} x {statistics.median(row_of(f'{place}: depth')):.0f} random, {pages} pages"
        report(of, f"{place}: keys and values attended over", row_of(f"{place}: speed"), "B/s", "drive or DRAM", "direct", a.record)
        report(of, f"{place}: bytes read per second", row_of(f"{place}: read"), "B/s", statistics.median(row_of(f"{place}: fio")), "direct", a.record, peer)
        report(of, f"{place}: bytes read per second / fio", row_of(f"{place}: drive"), "", (1, peer), "direct", a.record)
        report(of, f"{place}: speed / the nearer limit", row_of(f"{place}: limit"), "", (1, "fio, or in memory"), "direct", a.record)
        report(of, f"{place}: bytes read / the least", row_of(f"{place}: extra"), "", (1, "what does not fit"), "direct", a.record)
        report(of, f"{place}: share of the time that waits for the drive", row_of(f"{place}: waiting"), "", 1, "direct", a.record)

# depth

def depth(a):
    if not a.llama_bench: print(measure.LLAMA_HINT, file=sys.stderr)
    def peer(*arguments):
        return measure.llama(a.llama_bench, a.gguf, "-d", str(a.depth), *arguments, *shlex.split(a.llama_options), threads=a.threads)
    def ratio(x, y): return None if y is None else x / y
    def work():
        decode = ours(a, "decode", a.model, "--depth", a.depth, "--tokens", a.tokens, "--random-tokens", 1)["decodeTokensPerSecond"]
        peer_decode = peer("-p", "0", "-n", str(a.tokens))
        prefill = ours(a, "prefill", a.model, "--depth", a.depth, "--tokens", a.prompt)["prefillTokensPerSecond"]
        peer_prefill = peer("-p", str(a.prompt), "-n", "0")
        return {"decode": decode, "peer decode": peer_decode, "decode ratio": ratio(decode, peer_decode),
                "prefill": prefill, "peer prefill": peer_prefill, "prefill ratio": ratio(prefill, peer_prefill)}
    row = rounds(a, work)
    command = f"benchmarks/keys_and_values.py depth {os.path.basename(a.model)} --depth {a.depth}"
    options = f"llama-bench {a.llama_options}" if a.llama_options else ""
    for key, figure in [("decode", f"decode at depth {a.depth}"), ("prefill", f"prefill {a.prompt} at depth {a.depth}")]:
        report(command, figure, row(key), "tokens/s", "", "resident", a.record)
        report(command, f"llama.cpp {figure}", row(f"peer {key}"), "tokens/s", "", "resident", a.record, options)
        report(command, f"{figure} / llama.cpp", row(f"{key} ratio"), "", 1, "resident", a.record, options)

# types, policies and same: the same bits whenever they run, so one round

def types(a):
    command = f"benchmarks/keys_and_values.py types {os.path.basename(a.model)}"
    note, exact = f"{a.chunks or 'all'} chunks of {a.context}", None
    for kind in ["f16", "q8", "q4"]:
        value = ours(a, "perplexity", a.model, a.text, "--context", a.context, "--chunks", a.chunks, "--kv-type", kind)["perplexity"]
        exact = exact or value
        print(f"{kind}: perplexity {value:.4f}, {100 * (value / exact - 1):+.2f} % of f16's", flush=True)
        if not a.record: continue
        record(command, f"{kind}: perplexity", value, "", "" if kind == "f16" else exact, "resident", note)
        if kind != "f16": record(command, f"{kind}: perplexity / f16", value / exact, "", 1, "resident", note)

def policies(a):
    for policy in a.policies.split(","):
        own = ours(a, "policy", a.model, a.text, "--kv-policy", policy, "--kv-ram", a.kv_ram, "--kv-dir", a.folder,
                   "--context", a.context, "--positions", a.positions)
        values = [("argmax agreement", own["argmaxAgreement"], "of the positions", 1),
                  ("divergence", own["meanDivergence"], "nats", 0),
                  ("perplexity / full attention's", own["perplexity"] / own["fullPerplexity"], "", 1),
                  ("blocks attended over", own["attendedBlockFraction"], "of the blocks", ""),
                  ("bytes read", own["kvByteFraction"], "of full attention's", "")]
        values = [value for value in values if value[1] is not None]
        print(f"{policy}: " + ", ".join(f"{figure} {value:.4g}" for figure, value, _, _ in values), flush=True)
        for figure, value, unit, limit in values if a.record else []:
            record(f"benchmarks/keys_and_values.py policies {os.path.basename(a.model)} --kv-ram {a.kv_ram}", f"{policy}: {figure}",
                   value, unit, limit, "direct", f"context {a.context}, {own['comparedTokens']:.0f} positions after the prompt")

def answer(a, prompt, *options):
    """What flashinfer-run reports of continuing a text greedily."""
    command = [a.run, a.model, "--raw", "--temperature", 0, "--ignore-eos", "--max-tokens", a.tokens, "--threads", a.threads, "--json", *options]
    return json.loads(subprocess.run(list(map(str, command)), input=prompt, check=True, capture_output=True, encoding="utf-8").stdout)

def same(a):
    failures = []
    with open(a.text, "rb") as file: text = file.read()
    for size in a.prompts.split(","):
        prompt = text[:round(int(size) * BYTES_PER_TOKEN)].decode(errors="ignore")
        whole = answer(a, prompt)
        if whole["io"]["kvBytesRead"]: sys.exit("keys and values do not fit into memory; see --prompts")
        name = f"prompt of {len(whole['promptTokens'])} tokens"
        for ram in a.ram.split(","):
            own = answer(a, prompt, "--ram", ram, "--kv-ram", a.kv_ram, "--kv-dir", a.folder)
            read, peak = own["io"]["kvBytesRead"], own["memory"]["peakResidentBytes"] / own["memory"]["budgetBytes"]
            if not read: sys.exit(f"{name}: {a.kv_ram} hold all keys and values, so nothing is shown; see --kv-ram and --prompts")
            pairs = zip(whole["tokens"], own["tokens"], strict=True)
            other = next((f"token {i} is {x} in memory, {y} with the drive" for i, (x, y) in enumerate(pairs) if x != y), None)
            values = [("same tokens", int(other is None), "", 1), ("keys and values read", read, "B", ""), ("peak resident set / --ram", peak, "", 1)]
            print(f"{name}, --ram {ram}: " + ", ".join(f"{figure} {value:.4g}" for figure, value, _, _ in values), flush=True)
            if other: failures.append(f"{name}, --ram {ram}: {other}")
            if peak > 1: failures.append(f"{name}, --ram {ram}: the peak resident set exceeds it")
            for figure, value, unit, limit in values if a.record else []:
                record(f"benchmarks/keys_and_values.py same {os.path.basename(a.model)} --kv-ram {a.kv_ram} --ram {ram}", f"{name}: {figure}",
                       value, unit, limit, "direct", f"{a.tokens} tokens, greedy; {own['plan']['streamedBytes']} B of weights streamed a token")
    if failures: sys.exit("\n".join(failures))

def main():
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--rounds", type=int, default=3); shared.add_argument("--record", action="store_true")
    shared.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    shared.add_argument("--bench", default=".build/release/flashinfer-bench"); shared.add_argument("--folder", default="/var/tmp")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    def command(work):
        p = commands.add_parser(work.__name__, parents=[shared])
        p.set_defaults(work=work)
        return p
    p = command(context)
    p.add_argument("model"); p.add_argument("--budgets", default="4MiB,8MiB,16MiB,64MiB"); p.add_argument("--tokens", type=int, default=32)
    p.add_argument("--least", type=int, default=512); p.add_argument("--most", type=int, default=16384)
    p = command(attention)
    p.add_argument("--context", type=int, default=32768); p.add_argument("--layers", type=int, default=8)
    p.add_argument("--query-heads", type=int, default=32); p.add_argument("--kv-heads", type=int, default=8)
    p.add_argument("--head-size", type=int, default=128); p.add_argument("--repeats", type=int, default=3)
    p = command(depth)
    p.add_argument("model"); p.add_argument("gguf"); p.add_argument("--depth", type=int, default=4096)
    p.add_argument("--tokens", type=int, default=32); p.add_argument("--prompt", type=int, default=512)
    p.add_argument("--llama-bench", default=shutil.which("llama-bench")); p.add_argument("--llama-options", default="")
    p = command(types)
    p.add_argument("model"); p.add_argument("text"); p.add_argument("--context", type=int, default=2048)
    p.add_argument("--chunks", type=int, default=8)
    p = command(policies)
    p.add_argument("model"); p.add_argument("text"); p.add_argument("--policies", default=",".join(POLICIES))
    p.add_argument("--kv-ram", default="16MiB"); p.add_argument("--context", type=int, default=8192)
    p.add_argument("--positions", type=int, default=256)
    p = command(same)
    p.add_argument("model"); p.add_argument("text"); p.add_argument("--run", default=".build/release/flashinfer-run")
    p.add_argument("--prompts", default="1000,4000,7800"); p.add_argument("--tokens", type=int, default=64)
    p.add_argument("--kv-ram", default="8MiB"); p.add_argument("--ram", default="64MiB,400MiB")
    a = parser.parse_args()
    if os.getloadavg()[0] > 1: print("the machine is busy: no ratio of these runs means anything", file=sys.stderr)
    try: a.work(a)
    except subprocess.CalledProcessError as error: sys.exit(f"{shlex.join(error.cmd)}: {error.stderr.strip()}")

if __name__ == "__main__": main()
