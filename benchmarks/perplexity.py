#!/usr/bin/env python3
"""Perplexity of a text against a golden: at most 0.5 % above it.

usage: perplexity.py MODEL TEXT GOLDEN.json NAME [--chunks 16] [--record]

GOLDEN.json holds, under models / NAME / llama_cpp / running, the perplexity after each chunk of 512.
"""
import argparse, json, os, subprocess, sys
from record import record

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("model"); p.add_argument("text"); p.add_argument("golden"); p.add_argument("name")
p.add_argument("--chunks", type=int, default=16); p.add_argument("--bench", default=".build/release/flashinfer-bench")
p.add_argument("--record", action="store_true")
a = p.parse_args()

golden = json.load(open(a.golden))
peer = golden["models"][a.name]["llama_cpp"]["running"][a.chunks - 1]
out = subprocess.run([a.bench, "perplexity", a.model, a.text, "--context", str(golden["ctx"]),
                      "--chunks", str(a.chunks), "--json"], stdout=subprocess.PIPE, text=True, check=True).stdout
ours = {f["name"]: f["value"] for f in json.loads(out)["figures"]}["perplexity"]
print(f"perplexity {ours:.4f}, golden {peer:.4f}: {100 * (ours / peer - 1):+.2f} %")
if a.record:
    record(f"benchmarks/perplexity.py {os.path.basename(a.model)}", "perplexity", ours, "", peer * 1.005,
           "resident", f"{a.chunks} chunks of {golden['ctx']}; golden {peer}")
sys.exit(0 if ours <= peer * 1.005 else 1)
