#!/usr/bin/env python3
"""What a container costs: answers in control groups of half a processor and of 512 MB, set on the program's
own group and on the one around it. Throttled periods of the default against --threads 1 (at most 1.1 times),
and whether the kernel killed it (never). Needs root's rights.
usage: benchmarks/container.py MODEL [--run PATH] [--record]; exit code 1 where a bound is missed"""
import argparse, contextlib, json, os, subprocess, sys
from measure import control_folder, group_in
from record import record

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("model"); p.add_argument("--record", action="store_true")
p.add_argument("--run", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.build/release/flashinfer-run"))
p.add_argument("--tokens", type=int, default=400); p.add_argument("--rounds", type=int, default=3)
p.add_argument("--memory", type=int, default=512 << 20); p.add_argument("--ram", help="a budget within the limit (default: 90 %% of it)")
p.add_argument("--fill", help="a file to read before, in the group, so that its pages are in active use (default: MODEL)")
args = p.parse_args()
name, missed = os.path.basename(args.model), False

def answer(enter, *options):
    """Exit status and the report of an answer."""
    command = [args.run, args.model, "--raw", "A solid-state drive is", "--temperature", "0", "--ignore-eos", "--json",
               "--max-tokens", str(args.tokens), *options]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=enter)
    return done.returncode, done.stdout, done.stderr

@contextlib.contextmanager
def limited(controller, place, limits):
    """A group with `limits` and what moves a process there, or into a group without limits in it."""
    with group_in(control_folder(controller), limits) as group, contextlib.ExitStack() as stack:
        own = stack.enter_context(group_in(group, {})) if place == "parent" else group
        def enter():
            with open(own + "/cgroup.procs", "w") as out: out.write(str(os.getpid()))
        yield group, enter

def throttled(group):
    with open(group + "/cpu.stat") as file: fields = dict(line.split() for line in file)
    return int(fields["nr_throttled"]), int(fields["nr_periods"])

def note(figure, value, unit, limit, remark):
    if args.record: record(f"benchmarks/container.py {name}", figure, value, unit, limit, "warm", remark)

for place in ("own", "parent"):
    figures = {}
    for threads in ("default", "1", "2"):
        counts = []
        for _ in range(args.rounds):
            with limited("cpu", place, {"cpu.max": "50000 100000", "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"}) as (group, enter):
                status, _, errors = answer(enter, *([] if threads == "default" else ["--threads", threads]))
                if status: sys.exit(f"half a processor ({place}): exit code {status}: {errors}")
                counts.append(throttled(group))
        figures[threads] = sorted(counts)[len(counts) // 2]
    ratio = figures["default"][0] / max(1, figures["1"][0])
    print(f"half a processor ({place} group): throttled periods {figures['default'][0]} of {figures['default'][1]} by default, "
          f"{figures['1'][0]} of {figures['1'][1]} with --threads 1, {figures['2'][0]} of {figures['2'][1]} with --threads 2: "
          f"{ratio:.2f}, at most 1.1", flush=True)
    note(f"throttledPeriods, {place} group", ratio, "x", 1.1, f"half a processor: {figures['default'][0]} against {figures['1'][0]} with --threads 1")
    missed |= ratio > 1.1

    within = args.ram or str(args.memory // 10 * 9)
    for options in ([], ["--ram", within]):
        with limited("memory", place, {"memory.max": str(args.memory), "memory.limit_in_bytes": str(args.memory)}) as (group, enter):
            # Read twice, its pages are among the active ones.
            for _ in range(2): subprocess.run(["cat", args.fill or args.model], stdout=subprocess.DEVNULL, preexec_fn=enter, check=True)
            status, output, errors = answer(enter, *options)
        memory = json.loads(output)["memory"] if status == 0 else {}
        kind = " ".join(options) or "default budget"
        print(f"{args.memory >> 20} MiB ({place} group), {kind}: "
              + (f"budget {memory['budgetBytes'] >> 20} MiB, peak {memory['peakResidentBytes'] >> 20} MiB" if status == 0
                 else f"ended with {status}: {errors.strip()}"), flush=True)
        note(f"killed, {place} group, {kind}", int(status != 0), "", 0, f"{args.memory >> 20} MiB: {memory}")
        missed |= status != 0
sys.exit(missed)
