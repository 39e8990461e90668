#!/usr/bin/env python3
"""What a selector file costs in quality and asks of the drive, over teacher-forced text.

usage: selector_quality.py HF_FOLDER TEXT SELECTOR [--first TOKEN] [--chunks 4] [--window 0.6]

HF_FOLDER is the model in transformers' form (SwiGLU decoders). For predictors: KL(full || selected) of
the next token's distribution, neurons predicted, active and found, and neurons newly read per token, as
a share of all, where a window over all layers holds --window of them, under several rules of what to
keep. For thresholds: perplexity of each chunk's second half. Needs torch and transformers.
"""
import argparse
import math
import numpy as np
import torch
from safetensors import safe_open
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

CHUNK = 512


class Model:
    """A model whose FFNs let a function choose neurons."""

    def __init__(self, folder, text, first):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        with open(text, encoding="utf-8") as file:
            ids = AutoTokenizer.from_pretrained(folder)(file.read(), add_special_tokens=False)["input_ids"]
        self.ids = torch.tensor(ids[first:])
        self.layers, self.neurons = len(self.model.model.layers), self.model.config.intermediate_size
        self.choose = None
        for number, layer in enumerate(self.model.model.layers):
            layer.mlp.forward = lambda x, number=number, mlp=layer.mlp: self.feed_forward(number, mlp, x)

    def feed_forward(self, number, mlp, x):
        gate = mlp.gate_proj(x)
        active = mlp.act_fn(gate)
        if self.choose:
            active = active * self.choose(number, x[0], gate[0], active[0])
        return mlp.down_proj(active * mlp.up_proj(x))

    def tokens(self, chunk):
        return self.ids[chunk * CHUNK:(chunk + 1) * CHUNK]

    def log_probabilities(self, chunk, choose=None):
        self.choose = choose
        return functional.log_softmax(self.model(self.tokens(chunk)[None]).logits[0], -1)


def perplexity(model, chunks, choose=None):
    losses = []
    for chunk in range(chunks):
        scored = model.log_probabilities(chunk, choose)[CHUNK // 2 - 1:-1]
        losses.append(-scored.gather(1, model.tokens(chunk)[CHUNK // 2:, None]).mean())
    return math.exp(torch.stack(losses).mean())


def reads(masks, window, rule):
    """Neurons newly read per token, after the first quarter. masks: bool [tokens, layers, neurons].

    The window is never above its capacity: after each layer the neurons of least priority leave it.
    """
    tokens, layers, neurons = masks.shape
    capacity = int(layers * neurons * window)
    held = np.zeros(layers * neurons, bool)
    priority = np.zeros(layers * neurons)
    next_uses = None
    if rule == "clairvoyant":
        next_uses = np.empty(masks.shape, np.int32)
        later = np.full((layers, neurons), 1 << 30, np.int32)
        for token in reversed(range(tokens)):
            next_uses[token] = later
            later[masks[token]] = token
    count, counts = 0, np.zeros(tokens)
    for token in range(tokens):
        if rule not in ("lru", "clairvoyant"):
            priority *= float(rule)
        for layer in range(layers):
            mask, part = masks[token, layer], slice(layer * neurons, (layer + 1) * neurons)
            missing = int((mask & ~held[part]).sum())
            counts[token] += missing
            count += missing
            held[part] |= mask
            if rule == "lru":
                priority[part][mask] = token * layers + layer
            elif rule == "clairvoyant":
                priority[part] = -next_uses[token, layer].astype(float) * layers - layer
            else:
                priority[part] += mask
            if count > capacity:
                candidates = held.copy()
                candidates[part] &= ~mask
                candidates = np.flatnonzero(candidates)
                excess = count - capacity
                held[candidates[np.argpartition(priority[candidates], excess)[:excess]]] = False
                count = capacity
    return counts[tokens // 4:].mean() / held.size


def measure_predictors(model, selector, arguments):
    weights = [[selector.get_tensor(f"blk.{layer}.ffn_predictor{part}").float()
                for part in ("_a.weight", "_b.weight", ".bias")] for layer in range(model.layers)]
    masks = np.zeros((arguments.chunks * CHUNK, model.layers, model.neurons), bool)
    counts = np.zeros((model.layers, 3))
    place = 0

    def choose(layer, x, gate, _):
        a, b, bias = weights[layer]
        predicted = x @ a.T @ b.T + bias > 0
        masks[place:place + CHUNK, layer] = predicted.numpy()
        active = gate > 0
        counts[layer] += [int(predicted.sum()), int(active.sum()), int((predicted & active).sum())]
        return predicted

    divergences = []
    for chunk in range(arguments.chunks):
        place = chunk * CHUNK
        full = model.log_probabilities(chunk)
        selected = model.log_probabilities(chunk, choose)
        divergences.append(float((full.exp() * (full - selected)).sum(-1).mean()))
    predicted, active, hits = counts.sum(0)
    print(f"KL {np.mean(divergences):.5f} nats (chunks: {' '.join(f'{d:.4f}' for d in divergences)})")
    print(f"predicted {predicted / masks.size:.4f}, active {active / masks.size:.4f}, "
          f"recall {hits / active:.4f}, precision {hits / predicted:.4f}")
    for rule in arguments.rules.split(","):
        print(f"read per token, {rule}: {reads(masks, arguments.window, rule):.4f} of all neurons", flush=True)


def measure_thresholds(model, selector, arguments):
    values = [selector.get_tensor(f"blk.{layer}.ffn_threshold") for layer in range(model.layers)]
    kept = []

    def choose(layer, _x, _gate, active):
        chosen = active.abs() >= values[layer]
        kept.append(float(chosen.float().mean()))
        return chosen

    full, selected = perplexity(model, arguments.chunks), perplexity(model, arguments.chunks, choose)
    share = np.mean(kept)
    print(f"kept {share:.4f}, FFN bytes {(1 + 2 * share) / 3:.4f}, "
          f"perplexity {selected:.4f} of {full:.4f}: {100 * (selected / full - 1):+.2f} %")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("text")
    parser.add_argument("selector")
    parser.add_argument("--first", type=int, default=0, help="token of the text to begin with")
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--window", type=float, default=0.6)
    parser.add_argument("--rules", default="lru,0.8,0.9,0.95,clairvoyant",
                        help="lru, clairvoyant, or a factor of decay for frequencies")
    arguments = parser.parse_args()
    model = Model(arguments.folder, arguments.text, arguments.first)
    with safe_open(arguments.selector, "pt") as selector, torch.no_grad():
        names = set(selector.keys())
        if "blk.0.ffn_predictor_a.weight" in names:
            measure_predictors(model, selector, arguments)
        if "blk.0.ffn_threshold" in names:
            measure_thresholds(model, selector, arguments)


if __name__ == "__main__":
    main()
