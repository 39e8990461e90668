#!/usr/bin/env python3
"""Decoding speed over memory budgets: predicted, measured, the drive's limit, and llama.cpp.

usage: sweep.py IMAGE [--gguf GGUF] [--budgets 1GiB,2GiB,3GiB,4GiB,6GiB] [--tokens 16] [--rounds 1] [--record]

For each budget: drop caches; fio; `flashinfer-inspect --plan --calibrate` predicts; `flashinfer-bench
decode` measures, in a memory control group of budget + 64 MiB where one can be made (root); fio again.
With --gguf and llama-bench (on PATH or by --llama-bench; cmake --build build --target llama-bench in
llama.cpp) also that, mapping the file in a control group of the same size. The limit is what fio's mean
allows for the streamed bytes, and what the fastest budget reached where little is streamed. Needs fio.
"""
import argparse, json, os, shutil, statistics, sys
import measure
from measure import byte_count, control_group, drop, fio, run
from record import report

def measure_round(a, budget):
    """One round at one budget."""
    context = a.tokens + a.warmup
    common = ["--ram", budget, "--threads", str(a.threads), "--context", str(context), "--json"]
    drop(a.image)
    before = fio(a.image, "1MiB", 32, False, 2)
    plan = json.loads(run([a.inspect, a.image, "--plan", "--calibrate", "--prompt-length", "1", *common]))
    command = [a.bench, "decode", a.image, "--tokens", str(a.tokens), "--warmup", str(a.warmup), "--random-tokens", "1", *common[:-1]]
    limit = byte_count(budget) + (64 << 20)
    ours = measure.ours(*command, limit=limit)
    after = fio(a.image, "1MiB", 32, False, 2)
    return {"predicted": plan["predicted"]["decodeTokensPerSecond"], "limitName": plan["predicted"]["limit"],
            "measured": ours["decodeTokensPerSecond"], "streamed": ours["streamedBytes"], "drive": (before + after) / 2,
            "calibratedDrive": plan["calibration"]["driveBytesPerSecond"], 
            "llama": measure.llama(a.llama_bench, a.gguf, "-p", "0", "-n", str(a.llama_tokens), threads=a.threads, limit=limit)}

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("image"); p.add_argument("--gguf"); p.add_argument("--budgets", default="1GiB,2GiB,3GiB,4GiB,6GiB")
    p.add_argument("--tokens", type=int, default=16); p.add_argument("--warmup", type=int, default=2)
    p.add_argument("--llama-tokens", type=int, default=8); p.add_argument("--rounds", type=int, default=1)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--bench", default=".build/release/flashinfer-bench")
    p.add_argument("--inspect", default=".build/release/flashinfer-inspect")
    p.add_argument("--llama-bench", default=shutil.which("llama-bench"))
    p.add_argument("--record", action="store_true")
    a = p.parse_args()
    measure.need_fio()
    if not a.llama_bench: print(measure.LLAMA_HINT, file=sys.stderr)
    points = []
    for budget in a.budgets.split(","):
        rounds = [measure_round(a, budget) for _ in range(a.rounds)]
        middle = lambda key: statistics.median(r[key] for r in rounds)
        peers = [r["llama"] for r in rounds if r["llama"]]
        points.append({"label": budget, "rounds": rounds, "predicted": middle("predicted"), "measured": middle("measured"),
                       "ratio": statistics.median(r["predicted"] / r["measured"] for r in rounds), "limitName": rounds[0]["limitName"],
                       "streamed": middle("streamed"), "drive": middle("drive"), "llama": statistics.median(peers) if peers else None})
        print(json.dumps({key: value for key, value in points[-1].items() if key != 'rounds'}), file=sys.stderr)
    fastest = max(q["measured"] for q in points)
    name = os.path.basename(a.image)
    for q in points:
        q["limit"] = min(fastest, q["drive"] / q["streamed"]) if q["streamed"] else fastest
        peer = f", llama.cpp {q['llama']:.3f}" if q["llama"] else ""
        print(f"{q['label']}: predicted {q['predicted']:.3f} ({q['limitName']}), measured {q['measured']:.3f} tokens/s, "
              f"ratio {q['ratio']:.3f} (0.85 to 1.15), limit {q['limit']:.3f}{peer}")
        if not a.record: continue
        command, pages = f"benchmarks/sweep.py {name} --ram {q['label']}", "huge" if measure.huge_pages() else "small"
        of = lambda key: [r[key] for r in q["rounds"]]
        report(command, "decode", of("measured"), "tokens/s", (q["limit"], f"fio 1 MiB x 32, {pages} pages ÷ streamed bytes") if q["limit"] < fastest
               else "", "cold, direct", True)
        report(command, "predicted decode", of("predicted"), "tokens/s", "", "", True, f"limit {q['limitName']}")
        report(command, "predicted / measured decode", [r["predicted"] / r["measured"] for r in q["rounds"]], "", "0.85 to 1.15", "", True)
        report(command, "llama.cpp decode", of("llama"), "tokens/s", "", "cold, mmap", True, "same control group")

if __name__ == "__main__": main()
