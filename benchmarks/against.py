#!/usr/bin/env python3
"""Is this build slower than another commit's? Decode and prompts, resident and streamed, the two flashinfer-run
in turn; the ratio of each pair, ours ÷ theirs, must have a median of 0.98 at least. Both must give the same tokens.
usage: benchmarks/against.py MODEL --other PATH [--run PATH] [--rounds 9] [--turns] [--verify] [--record]; exit code 1 below 0.98
  --other    flashinfer-run of the commit that is compared with: git worktree add, tools/demo or swift build there
  --turns    resident decode alone, for machines that others use: both run at once, one stopped while the other goes on,
             50 ms each, and what is compared is the time that each was let go on and that of its processors
  --verify   also ours with --verify always ÷ ours without, streamed: what checking each read costs (no bound)"""
import argparse, json, os, signal, statistics, subprocess, sys, tempfile, time
from measure import drop
from record import report

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("model"); p.add_argument("--other", required=True)
p.add_argument("--run", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.build/release/flashinfer-run"))
p.add_argument("--rounds", type=int, default=9); p.add_argument("--tokens", type=int, default=96)
p.add_argument("--prompt", type=int, default=512); p.add_argument("--note", default="")
p.add_argument("--turns", action="store_true"); p.add_argument("--verify", action="store_true"); p.add_argument("--record", action="store_true")
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

def let_go(process, seconds):
    """Lets a stopped process go on; the time it took, and what it used where it ended."""
    os.kill(process.pid, signal.SIGCONT)
    start = time.perf_counter()
    while (now := time.perf_counter()) < start + seconds:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            if status: sys.exit(f"{process.args[0]}: exit code {os.waitstatus_to_exitcode(status)}")
            return now - start, used.ru_utime + used.ru_stime
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGSTOP)
    return time.perf_counter() - start, None

def in_turns(binaries):
    """Seconds and processor seconds of both, which run at once."""
    seconds, processor, running, outputs = {}, {}, {}, {}
    for side, binary in binaries.items():
        outputs[side] = tempfile.TemporaryFile()
        running[side] = subprocess.Popen([binary, args.model, "--tokens", "1,2,3,4", "--temperature", "0", "--ignore-eos", "--json",
                                          "--ram", str(size * 4), "--max-tokens", "400"], stdout=outputs[side], stderr=subprocess.DEVNULL)
        os.kill(running[side].pid, signal.SIGSTOP)
        seconds[side] = 0
    while running:
        for side in list(running):
            took, used = let_go(running[side], 0.05)
            seconds[side] += took
            if used is not None: processor[side] = used; del running[side]
    tokens = {}
    for side, output in outputs.items():
        output.seek(0)
        tokens[side] = json.load(output)["tokens"]
    if tokens["ours"] != tokens["theirs"]: sys.exit("turns: the tokens differ")
    return seconds, processor

def compare_in_turns():
    ratios = {"decode": [], "decode.processors": []}
    for turn in range(args.rounds):
        sides = [("ours", args.run), ("theirs", args.other)]
        for figure, times in zip(ratios, in_turns(dict(sides if turn % 2 else sides[::-1]))):
            ratios[figure].append(times["theirs"] / times["ours"])
    for figure, values in ratios.items():
        report(f"benchmarks/against.py {name} --turns", f"resident.{figure}", values, "of the other", 0.98, "warm", args.record, args.note)
    return all(statistics.median(values) >= 0.98 for values in ratios.values())

if args.turns: sys.exit(0 if compare_in_turns() else 1)
ok = compare("resident", size * 4, [args.run], [args.other], 0.98)
ok &= compare("streamed", size // 2, [args.run], [args.other], 0.98)
if args.verify:
    compare("verifyAlways", size // 2, [args.run, "--verify", "always"], [args.run], "")
sys.exit(0 if ok else 1)
