#!/usr/bin/env python3
"""Is this build slower than another commit's? Decode and prompts, resident and streamed, the two flashinfer-run
in turn; the ratio of each pair, ours ÷ theirs, must have a median of 0.98 at least. Both must give the same tokens.
usage: benchmarks/against.py MODEL --other PATH [--run PATH] [--rounds 9] [--verify] [--record]; exit code 1 below 0.98
  --other    flashinfer-run of the commit that is compared with: git worktree add, tools/demo or swift build there
  --verify   also ours with --verify always ÷ ours without, streamed: what checking each read costs (no bound)"""
import argparse, json, os, statistics, subprocess, sys
from measure import drop
from record import report

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("model"); p.add_argument("--other", required=True)
p.add_argument("--run", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.build/release/flashinfer-run"))
p.add_argument("--rounds", type=int, default=9); p.add_argument("--tokens", type=int, default=96)
p.add_argument("--prompt", type=int, default=512); p.add_argument("--note", default="")
p.add_argument("--verify", action="store_true"); p.add_argument("--record", action="store_true")
args = p.parse_args()
prompt = ",".join(str(1 + 37 * i % 5000) for i in range(args.prompt))
size, name = os.path.getsize(args.model), os.path.basename(args.model)

def answer(binary, ram, *options):
    out = subprocess.run([binary, args.model, "--tokens", prompt, "--temperature", "0", "--ignore-eos", "--json", "--ram",
                          str(ram), "--max-tokens", str(args.tokens), *options], capture_output=True, text=True)
    if out.returncode: sys.exit(f"{binary}: exit code {out.returncode}: {out.stderr}")
    out = json.loads(out.stdout)
    return out["timing"]["decodeTokensPerSecond"], out["timing"]["prefillTokensPerSecond"], out["tokens"]

def compare(label, ram, ours, theirs, bound):
    ratios = {"decode": [], "prefill": []}
    for turn in range(args.rounds):
        results = {}
        for side in (("ours", "theirs") if turn % 2 else ("theirs", "ours")):
            drop()
            results[side] = answer(*(ours if side == "ours" else theirs)[:1], ram, *(ours if side == "ours" else theirs)[1:])
        if results["ours"][2] != results["theirs"][2]: sys.exit(f"{label}: the tokens differ")
        ratios["decode"].append(results["ours"][0] / results["theirs"][0])
        ratios["prefill"].append(results["ours"][1] / results["theirs"][1])
    for figure, values in ratios.items():
        report(f"benchmarks/against.py {name}", f"{label}.{figure}", values, "of the other", bound, "cold", args.record, args.note)
    return all(statistics.median(values) >= bound for values in ratios.values()) if bound else True

ok = compare("resident", size * 4, [args.run], [args.other], 0.98)
ok &= compare("streamed", size // 2, [args.run], [args.other], 0.98)
if args.verify:
    compare("verifyAlways", size // 2, [args.run, "--verify", "always"], [args.run], "")
sys.exit(0 if ok else 1)
