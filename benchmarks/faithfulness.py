#!/usr/bin/env python3
"""How near the runtime's distributions are to an f32 reference, over golden prompts and continuations.

usage: faithfulness.py MODEL GOLDEN.json --reference REF_FORWARD.py [--bench PATH] [--budget SIZE] [--record]

GOLDEN.json holds, for each prompt, token ids and a continuation (teacher-forced); REF_FORWARD.py is a
module with `Model(path).forward(tokens) -> logits`. MODEL may be a flash image of the golden's GGUF:
give that GGUF with --reference-model then. Reference logits are cached beside the golden's name in
--cache. Prints KL(reference || ours), position 0 apart, and argmax agreement; exits with 1 where the
anchor plus two standard errors is exceeded. Needs numpy and gguf.
"""
import argparse, importlib.util, json, os, subprocess, sys, tempfile
import numpy as np
from record import record

def log_softmax(x):
    x = x.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("model"); p.add_argument("golden"); p.add_argument("--reference", required=True)
p.add_argument("--reference-model"); p.add_argument("--bench", default=".build/release/flashinfer-bench")
p.add_argument("--budget"); p.add_argument("--cache", default=os.path.expanduser("~/.cache/flashinfer/reference"))
p.add_argument("--record", action="store_true"); p.add_argument("--io", default="auto"); p.add_argument("--threads")
a = p.parse_args()

golden = json.load(open(a.golden))
os.makedirs(a.cache, exist_ok=True)
spec = importlib.util.spec_from_file_location("reference", a.reference)
reference = importlib.util.module_from_spec(spec); spec.loader.exec_module(reference)
model = None
kl, zero, greedy, agree = [], [], 0, 0
for name, prompt in golden["prompts"].items():
    ids = prompt["token_ids"] + prompt["llama_cpp"]["ids"]
    first = len(prompt["token_ids"]) - 1  # the last prompt position predicts the first greedy token
    ids = ids[:-1]
    path = os.path.join(a.cache, f"{golden['model']}-{name}.npy")
    if not os.path.exists(path):
        model = model or reference.Model(a.reference_model or a.model)
        np.save(path, model.forward(ids).astype(np.float32))
    expected = log_softmax(np.load(path))
    with tempfile.NamedTemporaryFile() as out:
        command = [a.bench, "logits", a.model, "--tokens", ",".join(map(str, ids)), "--output", out.name,
                   "--prompt", str(first + 1), "--io", a.io]
        if a.budget: command += ["--ram", a.budget]
        if a.threads: command += ["--threads", a.threads]
        subprocess.run(command, check=True)
        ours = log_softmax(np.fromfile(out.name, np.float32).reshape(len(ids), -1))
    d = (np.exp(expected) * (expected - ours)).sum(-1)
    zero.append(d[0]); kl.append(d[1:])
    greedy += len(ids) - first
    agree += int((expected[first:].argmax(-1) == ours[first:].argmax(-1)).sum())
    print(f"{name}: {len(ids)} positions, mean KL {d[1:].mean():.5f}, worst {d[1:].max():.4f}")
kl = np.concatenate(kl)
anchor = golden["kl_anchor_default_excl_pos0"]
limit = anchor["mean"] + 2 * anchor["sem"]
figures = [
    {"name": "meanKL", "value": kl.mean(), "unit": "nats", "limit": limit},
    {"name": "semKL", "value": kl.std() / len(kl) ** 0.5, "unit": "nats"},
    {"name": "p95KL", "value": float(np.quantile(kl, 0.95)), "unit": "nats", "limit": 1.2 * anchor["p95"]},
    {"name": "worstKL", "value": kl.max(), "unit": "nats", "limit": 3 * anchor["max"]},
    {"name": "position0KL", "value": max(zero), "unit": "nats"},
    {"name": "argmaxAgreement", "value": agree, "unit": f"of {greedy}; peer {golden['greedy_agree_total']}"},
]
print(json.dumps({"figures": figures}, default=float))
if a.record:
    for f in figures:
        record(f"benchmarks/faithfulness.py {os.path.basename(a.model)}", f["name"], f["value"], f["unit"],
               f.get("limit", ""), f"--ram {a.budget}" if a.budget else "resident", "teacher-forced goldens")
sys.exit(0 if kl.mean() <= limit and kl.max() <= 3 * anchor["max"] else 1)
