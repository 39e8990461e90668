#!/usr/bin/env python3
"""What selectors cost in quality and ask of the drive, on trained models in bundles of single neurons.

usage: neurons.py relu IMAGE TEXT      a ReLU model with a trained predictor, memory for 60 % of its FFN
       neurons.py threshold IMAGE TEXT  a SiLU model with thresholds, against all neurons in the same memory

IMAGE comes from flashinfer-convert --bundle single-neurons --selector-file; TEXT is one that the selector was not
trained on. Options: --chunks 8, --tokens 300, --record (appends to results.tsv).
"""
import argparse, json, os, sys
import measure
from record import record

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("kind", choices=["relu", "threshold"]); p.add_argument("image"); p.add_argument("text")
p.add_argument("--chunks", type=int, default=8); p.add_argument("--tokens", type=int, default=300)
p.add_argument("--warmup", type=int, default=200); p.add_argument("--ram", default="80MiB", help="of the threshold comparison")
p.add_argument("--window", type=float, default=0.6, help="share of the FFN's bytes that memory has room for")
p.add_argument("--bench", default=".build/release/flashinfer-bench")
p.add_argument("--inspect", default=".build/release/flashinfer-inspect"); p.add_argument("--record", action="store_true")
a = p.parse_args()

def decode(selector, *options):
    return measure.ours(a.bench, "decode", a.image, "--selector", selector, "--text", a.text, "--tokens", a.tokens,
                        "--warmup", a.warmup, *options)

def quality(selector):
    return measure.ours(a.bench, "perplexity", a.image, a.text, "--selector", selector, "--chunks", a.chunks)

def report(figure, value, unit, limit, note=""):
    print(f"{figure}: {value:.4g} {unit} (held against: {limit})", flush=True)
    if a.record:
        record(f"benchmarks/neurons.py {a.kind} {os.path.basename(a.image)}", figure, float(value), unit, limit, "cold, direct",
               f"{a.tokens} tokens of text, {a.chunks} chunks of 512" + (f"; {note}" if note else ""))

if a.kind == "relu":
    plan = lambda selector: json.loads(measure.run([a.inspect, a.image, "--plan", "--selector", selector, "--json"]))["plan"]
    own = plan("predictor")
    window = int(a.window * own["neuronBundles"] * own["neuronBundleBytes"])
    found = decode("predictor", "--window", f"{window >> 10}KiB")
    cost = quality("predictor")
    report("predictor: FFN bytes read / all FFN bytes", found["neuronFractionRead"], "", (0.1, "at most"),
           f"bundles read / bundles; window {found['windowFraction']:.3f} of the FFN")
    report("predictor: neurons selected", found["neuronFractionUsed"], "of all", "")
    report("predictor: KL from all neurons", cost["meanDivergence"], "nats", (0.01, "at most"))
    report("predictor: perplexity cost", cost["perplexityCost"], "of the dense", "")
    exact, dense = quality("exact"), quality("all")
    report("exact: perplexity - all neurons' perplexity", exact["perplexity"] - dense["perplexity"], "", 0)
    # The gate stays in memory: a third of the FFN.
    third = decode("exact", "--window", f"{int(window * (a.window - 1 / 3) / a.window) >> 10}KiB")
    report("exact: neurons read / all, gate in memory", third["neuronFractionRead"], "", "",
           f"window {third['windowFraction']:.3f} of up and down")
else:
    cost = quality("threshold")
    kept = decode("threshold", "--ram", a.ram)
    dense = decode("all", "--ram", a.ram)
    report("threshold: perplexity cost", cost["perplexityCost"], "of the dense", (0.02, "at most"))
    report("threshold: neurons kept", kept["neuronFractionUsed"], "of all", "")
    report("threshold: FFN bytes a token / all neurons', same memory", kept["neuronBytesPerToken"] / dense["neuronBytesPerToken"],
           "", (0.75, "at most"), f"--ram {a.ram}: {kept['neuronBytesPerToken']:.4g} and {dense['neuronBytesPerToken']:.4g} B")
    report("threshold: FFN bytes without window", (1 + 2 * kept["neuronFractionUsed"]) / 3, "of all", "",
           "(1 + 2 kept) / 3, the gate read whole")
