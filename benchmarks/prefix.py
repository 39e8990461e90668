#!/usr/bin/env python3
"""How long is the way to the first token of a prompt whose beginning was read before?

usage: prefix.py MODEL [--ram 2200MiB] [--prompt 4096] [--rounds 3] [--folder FOLDER] [--record]

Through the Python package (FLASHINFER_LIBRARY names the library, tools/install makes it), with a store of keys and values on
FOLDER's drive. In each round, each until the first token:

  unseen     a prompt of --prompt random tokens, weights in memory as far as they are pinned
  identical  the same prompt again: its logits are stored. Held against 250 times as fast
  warm       a prompt that begins like it and ends in 16 other tokens; held against 70
  cold       the same in a new engine, whose making counts, with model and store dropped from the page cache; held against 35.
             All weights and the entry are read once. A virtual machine whose host finds memory when it is first touched clears
             pages at 0.4 GB/s, which takes longer than that: see clear_page in perf record
  restarted  as cold, the identical prompt: its logits are stored
  kept       bytes of the largest entry ÷ those that keys and values of the prompt take: more than 1 where layers have states, which are
             kept at a few places of a prompt; held against 2. Holes of the file, for states that are not kept, take no room

--record appends to results.tsv.
"""
import argparse, glob, json, os, random, subprocess, sys, tempfile, time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../python"))
import flashinfer_ssd, measure
from record import report

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("model"); p.add_argument("--ram"); p.add_argument("--prompt", type=int, default=4096); p.add_argument("--rounds", type=int, default=3)
p.add_argument("--inspect", default=".build/release/flashinfer-inspect"); p.add_argument("--folder", default="/var/tmp"); p.add_argument("--vocabulary", type=int, default=30000, help="random token ids are below this")
p.add_argument("--child", help=argparse.SUPPRESS); p.add_argument("--record", action="store_true")
a = p.parse_args()
random.seed(1)
OTHER = 16

def tokens(count): return [random.randrange(20, a.vocabulary) for _ in range(count)]

def child(store, prompts):
    """Answers prompts in a process of its own, which has no memory of an earlier engine: how long the engine took to be made, and
    of each prompt the seconds to its first token, and from its second to its third."""
    command = [sys.executable, os.path.abspath(__file__), a.model, "--prompt", str(a.prompt), "--child", store] + (["--ram", a.ram] if a.ram else [])
    return json.loads(subprocess.run(command, input=json.dumps(prompts), capture_output=True, text=True, check=True).stdout)

def answer(store, prompts):
    start, found = time.monotonic(), []
    with flashinfer_ssd.Engine(a.model, a.ram, context=a.prompt + 64, sequences=1, kv_store=store) as engine:
        made = time.monotonic() - start
        for prompt in prompts:
            start = time.monotonic()
            with engine.open(prompt, max_tokens=3, ignore_end=True) as sequence:
                times = [time.monotonic() - start for _ in sequence.tokens()]
            found.append((times[0], times[2] - times[1]))
            # Time for what was read to be kept.
            time.sleep(1)
    return made, found

if a.child:
    print(json.dumps(answer(a.child, json.load(sys.stdin))))
    sys.exit()

plan = json.loads(measure.run([a.inspect, a.model, "--plan", "--json", "--context", str(a.prompt)] + (["--ram", a.ram] if a.ram else [])))["plan"]
rows = {name: [] for name in ["unseen", "identical", "warm", "cold", "restarted", "sweep", "kept"]}
for number in range(a.rounds):
    with tempfile.TemporaryDirectory(dir=a.folder) as store:
        prompt = tokens(a.prompt)
        def similar(): return prompt[:-OTHER] + tokens(OTHER)
        _, (_, (unseen, _), (identical, sweep), (warm, _)) = child(store, [tokens(8), prompt, prompt, similar()])
        entries = glob.glob(store + "/*.kv")
        largest = max(entries, key=os.path.getsize)
        bandwidth = measure.fio(largest)
        def restart(tokens):
            measure.drop(a.model, *entries)
            made, ((first, _),) = child(store, [tokens])
            return made, first
        made, first = restart(similar())
        cold, restarted = made + first, sum(restart(prompt))
        for name, value in [("unseen", unseen), ("identical", unseen / identical), ("warm", unseen / warm), ("cold", unseen / cold),
                            ("restarted", unseen / restarted), ("sweep", sweep), ("kept", os.stat(largest).st_blocks * 512 / plan["keyValueBytes"])]:
            rows[name].append(value)
        print(f"round {number + 1}: unseen {unseen:.2f} s, identical {identical * 1000:.1f} ms, warm {warm:.3f} s, cold {cold:.3f} s "
              f"(making {made:.3f}), restarted {restarted:.3f} s, sweep {sweep:.3f} s, entry {os.stat(largest).st_blocks * 512 / 1e6:.0f} MB, fio {bandwidth / 1e9:.2f} GB/s", file=sys.stderr)

command = f"benchmarks/prefix.py {os.path.basename(a.model)} --prompt {a.prompt}" + (f" --ram {a.ram}" if a.ram else "")
for figure, unit, limit in [("unseen", "s", ""), ("sweep", "s", ""), ("identical", "unseen / identical", (250, "at least")),
                            ("warm", "unseen / warm", (70, "at least")), ("cold", "unseen / cold", (35, "at least")),
                            ("restarted", "unseen / restarted", (35, "at least")), ("kept", "entry / keys and values", (2, "at most"))]:
    report(command, figure, rows[figure], unit, limit, "as named", a.record)
