#!/usr/bin/env python3
"""Do GGUF files of llama.cpp's own converter give the probabilities that llama.cpp computes of them?

usage: converted.py [NAME...] --llama-cpp SOURCE --build BUILD [--record]

Every model of tools/make-vectors, or those that are named, is made anew with a published tokenizer, since the converter knows no
others, and converted with matrices in f32. The figure is the mean over positions of KL(llama.cpp || ours), and the worst.
SOURCE is llama.cpp's and BUILD where its libraries were built; tools/test-converter gets both, and what the converter needs of
PyPI. Exits with 1 where a family is not converted, is refused or is further away than 0.001.
"""
import argparse, json, os, shutil, subprocess, sys, tempfile
import numpy as np
import measure, record

here = os.path.dirname(os.path.abspath(__file__))
p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("names", nargs="*"); p.add_argument("--llama-cpp", required=True); p.add_argument("--build", required=True)
p.add_argument("--tokenizers", required=True, help="what tools/fetch-tokenizers printed")
p.add_argument("--bench", default=here + "/../.build/release/flashinfer-bench")
p.add_argument("--keep", help="a folder in which models stay"); p.add_argument("--record", action="store_true")
a = p.parse_args()
LIMIT, CONTEXT, COUNT = 1e-3, 256, 96
# There are no GGUF files of OPT and MiniMax-01; llama.cpp lets Phi's windows be, as it says when it loads them. Its converter takes
# every Nemotron-H that transformers 5 reads for one with experts, and does not know the tokenizer that the last of them gets here.
WITHOUT = {"opt", "phi3", "minimax", "nemotron-h", "qwen35moe"}

def log_softmax(path, count):
    x = np.fromfile(path, "<f4").reshape(count, -1).astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))

def divergence(gguf, folder, vocabulary):
    """KL at every position of fixed random tokens."""
    tokens = ",".join(map(str, np.random.default_rng(7).integers(3, vocabulary, COUNT)))
    measure.run([folder + "/llama_logits", gguf, tokens, str(CONTEXT), folder + "/theirs"])
    measure.run([a.bench, "logits", gguf, "--tokens", tokens, "--context", str(CONTEXT), "--output", folder + "/ours", "--quiet"])
    theirs, ours = (log_softmax(f"{folder}/{side}", COUNT) for side in ("theirs", "ours"))
    return (np.exp(theirs) * (theirs - ours)).sum(-1)

def as_published(config):
    """Of Granite 4 hybrids, whose published folders call their layers otherwise than transformers does today: as the converter knows them."""
    if config["model_type"] == "granitemoehybrid":
        config["layer_types"] = [{"linear_attention": "mamba", "full_attention": "attention"}.get(kind, kind) for kind in config["layer_types"]]
        if not config["num_local_experts"]: config["num_experts_per_tok"] = 0

def convert(source, gguf):
    """Converts a folder; returns the vocabulary's count."""
    with open(source + "/config.json") as file: config = json.load(file)
    as_published(config)
    with open(source + "/config.json", "w") as file: json.dump(config, file, indent=2)
    # Of these families the converter wants layers that predict further tokens, which tiny models have not.
    options = ["--no-mtp"] if config["model_type"].startswith(("qwen3_next", "qwen3_5")) else []
    measure.run([sys.executable, a.llama_cpp + "/convert_hf_to_gguf.py", source, "--outfile", gguf, "--outtype", "f32", *options])
    return config.get("text_config", config)["vocab_size"]

with tempfile.TemporaryDirectory() as temporary:
    folder = a.keep or temporary
    os.makedirs(folder, exist_ok=True)
    libraries = a.build + "/bin"
    measure.run(["cc", "-O2", here + "/llama_logits.c", "-o", folder + "/llama_logits", f"-I{a.llama_cpp}/include",
                 f"-I{a.llama_cpp}/ggml/include", f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-lllama", "-lggml", "-lggml-base"])
    measure.run([sys.executable, here + "/../tools/make-vectors", "--output", folder + "/folders", "--tokenizers", a.tokenizers, *a.names])
    failed = []
    for name in sorted(set(a.names or os.listdir(folder + "/folders")) - (set() if a.names else WITHOUT)):
        gguf = f"{folder}/{name}.gguf"
        try: found = divergence(gguf, folder, convert(f"{folder}/folders/{name}", gguf))
        except subprocess.CalledProcessError as error:
            print(f"{name}: {error.cmd[0]} ended with {error.returncode}\n{error.stderr[-2000:]}", file=sys.stderr)
            failed.append(name)
            continue
        print(f"{name}: KL {found.mean():.2e}, at worst {found.max():.2e}", flush=True)
        if not found.mean() <= LIMIT: failed.append(name)
        if a.record:
            for figure, value in (("mean KL to llama.cpp", found.mean()), ("worst KL to llama.cpp", found.max())):
                record.record("benchmarks/converted.py", figure, float(value), "nats", (LIMIT, "at most"), "resident",
                              f"convert_hf_to_gguf.py, f32, {COUNT} positions", model=name + ".gguf", budget="")
        if not a.keep: os.remove(gguf)
sys.exit(f"not as llama.cpp: {', '.join(failed)}" if failed else 0)
