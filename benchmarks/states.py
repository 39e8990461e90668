#!/usr/bin/env python3
"""Does a model whose layers have states decode as fast far into a text as at its beginning?

usage: states.py MODEL [--depths 100,100000] [--tokens 64] [--rounds 3] [--record]

In every round the model decodes after each depth in turn, all of it in memory; the figure is the median of the rounds' ratios, the last
depth's tokens per second ÷ the first's. A model that does not attend (`synth_shapes.py mamba2`) is held against 0.97; in others attention
reads more the deeper it is.
"""
import argparse, os
import measure, record

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("model"); p.add_argument("--depths", default="100,100000"); p.add_argument("--tokens", type=int, default=64)
p.add_argument("--rounds", type=int, default=3); p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
p.add_argument("--bench", default=".build/release/flashinfer-bench"); p.add_argument("--record", action="store_true")
a = p.parse_args()
depths = [int(depth) for depth in a.depths.split(",")]

rounds = [[measure.ours(a.bench, "decode", a.model, "--depth", depth, "--tokens", a.tokens, "--random-tokens", 1, "--threads",
                        a.threads)["decodeTokensPerSecond"] for depth in depths] for _ in range(a.rounds)]
command = "benchmarks/states.py " + os.path.basename(a.model)
for number, depth in enumerate(depths):
    record.report(command, f"decode at {depth}", [speeds[number] for speeds in rounds], "tokens/s", "", "resident", a.record)
record.report(command, f"decode at {depths[-1]} / at {depths[0]}", [speeds[-1] / speeds[0] for speeds in rounds], "", (0.97, "at least"),
              "resident", a.record)
