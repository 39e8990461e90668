#!/usr/bin/env python3
"""Time to the first token of a second process with the same prompt, from a store of keys and values.

usage: kv_store.py MODEL [--tokens 4000] [--rounds 5] [--folder FOLDER] [--record]

The first process computes the prompt and keeps it in a store on FOLDER's drive. Each round, in turn: a prompt of
one token (what loading takes), fio's direct reads of the entry at 16 reads of 96 KiB, and the same prompt again,
with the entry and the model dropped from the page cache. The limit is 1.5 × (loading + bytes of the entry ÷ fio +
one token at that depth).

Needs fio, and root for a cold cache. --record appends to results.tsv.
"""
import argparse, glob, json, os, random, sys, tempfile
import measure
from measure import drop, fio
from record import report

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("model"); p.add_argument("--tokens", type=int, default=4000); p.add_argument("--rounds", type=int, default=5)
p.add_argument("--folder", default="/var/tmp"); p.add_argument("--run", default=".build/release/flashinfer-run")
p.add_argument("--record", action="store_true")
a = p.parse_args()
measure.need_fio()
random.seed(1)
prompt = ",".join(str(random.randrange(20, 30000)) for _ in range(a.tokens))

def answer(tokens, *more):
    out = json.loads(measure.run([a.run, a.model, "--tokens", tokens, "--json", "--temperature", "0", "--max-tokens", "8",
                                  "--ignore-eos", *more]))
    return out, out["timing"]["timeToFirstTokenSeconds"], 1 / out["timing"]["decodeTokensPerSecond"]

rows = []
with tempfile.TemporaryDirectory(dir=a.folder) as store:
    expected, first, _ = answer(prompt, "--kv-store", store)
    entry, = glob.glob(store + "/*.kv")
    for number in range(a.rounds):
        drop(a.model, entry)
        _, short, token = answer("5")
        bandwidth = fio(entry, "96KiB", 16, seconds=1)
        drop(a.model, entry)
        out, second, deep = answer(prompt, "--kv-store", store)
        assert out["reusedTokens"] == a.tokens - 1 and out["tokens"] == expected["tokens"], "another answer"
        limit = short - token + os.path.getsize(entry) / bandwidth + deep
        rows.append({"second": second, "ratio": second / limit, "first": first / second})
        print(f"round {number + 1}: {second:.3f} s, limit {limit:.3f} s, fio {bandwidth / 1e9:.2f} GB/s", file=sys.stderr)

command = f"benchmarks/kv_store.py {os.path.basename(a.model)} --tokens {a.tokens}"
for figure, key, unit, limit in [("time to first token, second process", "second", "s", ""),
                                 ("that ÷ (load + bytes ÷ fio + a token)", "ratio", "", 1.5),
                                 ("first process ÷ second", "first", "", 20)]:
    values = [row[key] for row in rows]
    report(command, figure, values, unit, limit, "cold, direct", a.record)
