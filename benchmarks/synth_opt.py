#!/usr/bin/env python3
"""Makes a random OPT whose FFNs are sparse, by default in the shape of OPT-6.7B (13.4 GB), as a Hugging
Face folder, with a low-rank predictor of its neurons beside it (selector.safetensors).

It is built so that as many neurons are active, and newly active from token to token, as "LLM in a flash"
(arXiv:2312.11514) says of OPT-6.7B: positions are an AR(1) walk that outweighs the tokens, so that FFNs
see a slowly turning vector; fc1 is U V and a little noise; its bias lets a fixed share through. V and U
are the predictor. Text and logits mean nothing. What was measured on random tokens, layer by layer, is
printed and written into the selector. Needs numpy.

    synth_opt.py FOLDER [--identity HEX] [--layers N --dim N --ffn N --heads N --vocab N --rank N]
    synth_opt.py --set-identity FOLDER HEX
"""

import argparse
import json
import os
import struct

import numpy as np

TYPES = {"F16": np.float16, "F32": np.float32}
# Standard deviations, in units of the residual stream's.
TOKEN, NOISE, MARGIN = 0.1, 0.02, 0.04
# Of what a sublayer adds.
ATTENTION, FFN = 0.02, 0.02
# Quantile of the normal distribution above which 9.5 % lie.
THRESHOLD = 1.31
WINDOW = 5


class Safetensors:
    """A file written tensor by tensor, in the order of `shapes`: (name, type, shape)."""

    def __init__(self, path, shapes, metadata=None):
        header, offset = {"__metadata__": metadata or {"format": "pt"}}, 0
        for name, kind, shape in shapes:
            count = int(np.prod(shape)) * np.dtype(TYPES[kind]).itemsize
            header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [offset, offset + count]}
            offset += count
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        self.shapes = list(shapes)
        self.file = open(path, "wb")
        self.file.write(struct.pack("<Q", len(text)) + text)

    def write(self, name, values):
        expected, kind, shape = self.shapes.pop(0)
        assert (expected, shape) == (name, values.shape), (expected, name, shape, values.shape)
        np.ascontiguousarray(values, TYPES[kind]).tofile(self.file)
        if not self.shapes:
            self.file.close()


def read_safetensors(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    metadata = header.pop("__metadata__")
    tensors = []
    for name, entry in header.items():
        first, end = entry["data_offsets"]
        values = np.frombuffer(data[first:end], TYPES[entry["dtype"]]).reshape(entry["shape"])
        tensors.append((name, entry["dtype"], values))
    return metadata, tensors


def write_safetensors(path, metadata, tensors):
    file = Safetensors(path, [(name, kind, v.shape) for name, kind, v in tensors], metadata)
    for name, _, values in tensors:
        file.write(name, values)


def half(values):
    return values.astype(np.float16)


def layer_norm(x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)


def attention(x, q, k, v, heads):
    count, dim = x.shape
    split = lambda w: (x @ w.astype(np.float32).T).reshape(count, heads, dim // heads).swapaxes(0, 1)
    scores = split(q) @ split(k).swapaxes(1, 2) / np.sqrt(dim // heads)
    scores[:, np.triu(np.ones((count, count), bool), 1)] = -np.inf
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    return ((scores / scores.sum(-1, keepdims=True)) @ split(v)).swapaxes(0, 1).reshape(count, dim)


def newly_active(active):
    """Share of neurons that are active and were not for any of the last tokens."""
    shares = []
    for token in range(WINDOW, len(active)):
        shares.append((active[token] & ~active[token - WINDOW:token].any(0)).mean())
    return float(np.mean(shares))


class Model:
    def __init__(self, options):
        self.o = options
        self.random = np.random.default_rng(options.seed)
        # One block gives all matrices without structure: each begins at another place of it.
        count = options.ffn * options.dim + (1 << 16)
        self.block = self.random.standard_normal(count, np.float32)

    def matrix(self, rows, columns, deviation):
        shift = int(self.random.integers(len(self.block) - rows * columns + 1))
        return half(self.block[shift:shift + rows * columns].reshape(rows, columns) * np.float32(deviation))

    def tables(self):
        o = self.o
        tokens = half(self.random.standard_normal((o.vocab, o.dim), np.float32) * np.float32(TOKEN))
        positions = self.random.standard_normal((o.positions + 2, o.dim), np.float32)
        fresh = np.float32(np.sqrt(1 - o.correlation ** 2))
        for row in range(1, len(positions)):
            positions[row] = o.correlation * positions[row - 1] + fresh * positions[row]
        return tokens, half(positions)

    def layer(self):
        o, unit = self.o, np.float32(1 / np.sqrt(self.o.dim))
        v = half(self.random.standard_normal((o.rank, o.dim), np.float32) * unit)
        u = self.random.standard_normal((o.ffn, o.rank), np.float32)
        u = half(u / np.linalg.norm(u, axis=1, keepdims=True))
        fc1 = u.astype(np.float32) @ v.astype(np.float32)
        fc1 += self.matrix(o.ffn, o.dim, NOISE * unit)
        weights = {
            "q": self.matrix(o.dim, o.dim, unit), "k": self.matrix(o.dim, o.dim, unit),
            "v": self.matrix(o.dim, o.dim, unit), "out": self.matrix(o.dim, o.dim, ATTENTION * unit),
            "fc1": half(fc1),
            # 9.5 % of the neurons give 0.21 each in the mean square.
            "fc2": self.matrix(o.dim, o.ffn, FFN / np.sqrt(0.02 * o.ffn)),
        }
        bias = np.full(o.ffn, -THRESHOLD, np.float16)
        predictor = (v, u, bias.astype(np.float32) + np.float32(MARGIN))
        return weights, bias, predictor


def shapes_of_layer(o, n):
    prefix, shapes = f"model.decoder.layers.{n}.", []
    for name in ["q_proj", "k_proj", "v_proj", "out_proj"]:
        shapes += [(f"{prefix}self_attn.{name}.weight", "F16", (o.dim, o.dim)),
                   (f"{prefix}self_attn.{name}.bias", "F16", (o.dim,))]
    for name in ["self_attn_layer_norm", "final_layer_norm"]:
        shapes += [(f"{prefix}{name}.{part}", "F16", (o.dim,)) for part in ["weight", "bias"]]
    return shapes + [(prefix + "fc1.weight", "F16", (o.ffn, o.dim)), (prefix + "fc1.bias", "F16", (o.ffn,)),
                     (prefix + "fc2.weight", "F16", (o.dim, o.ffn)), (prefix + "fc2.bias", "F16", (o.dim,))]


def tokenizer(vocabulary):
    """GPT-2's byte alphabet after the special tokens, and tokens that no text has."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    alphabet = [chr(byte) for byte in plain] + [chr(256 + index) for index in range(len(others))]
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokens = special + alphabet
    tokens += [f"<{index}>" for index in range(len(tokens), vocabulary)]
    added = [{"id": index, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for index, text in enumerate(special)]
    return {"version": "1.0", "added_tokens": added, "normalizer": None,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
            "post_processor": {"type": "TemplateProcessing",
                               "single": [{"SpecialToken": {"id": "</s>", "type_id": 0}},
                                          {"Sequence": {"id": "A", "type_id": 0}}],
                               "special_tokens": {"</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}},
            "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "unk_token": None, "merges": [],
                      "vocab": {token: index for index, token in enumerate(tokens)}}}


def save_json(folder, name, value):
    with open(os.path.join(folder, name), "w") as file:
        json.dump(value, file)


def make(o):
    os.makedirs(o.folder, exist_ok=True)
    save_json(o.folder, "config.json", {
        "architectures": ["OPTForCausalLM"], "model_type": "opt", "activation_function": "relu",
        "do_layer_norm_before": True, "hidden_size": o.dim, "word_embed_proj_dim": o.dim,
        "ffn_dim": o.ffn, "num_hidden_layers": o.layers, "num_attention_heads": o.heads,
        "vocab_size": o.vocab, "max_position_embeddings": o.positions, "bos_token_id": 2,
        "eos_token_id": 2, "pad_token_id": 1, "tie_word_embeddings": True, "torch_dtype": "float16"})
    save_json(o.folder, "tokenizer.json", tokenizer(o.vocab))
    save_json(o.folder, "tokenizer_config.json", {"bos_token": "</s>", "eos_token": "</s>"})

    groups = [range(first, min(first + 8, o.layers)) for first in range(0, o.layers, 8)]
    names = [f"model-{n + 1:05}-of-{len(groups):05}.safetensors" for n in range(len(groups))]
    outer = "model.decoder."
    shapes = [[shape for n in group for shape in shapes_of_layer(o, n)] for group in groups]
    shapes[0] = [(outer + "embed_tokens.weight", "F16", (o.vocab, o.dim)),
                 (outer + "embed_positions.weight", "F16", (o.positions + 2, o.dim)),
                 (outer + "final_layer_norm.weight", "F16", (o.dim,)),
                 (outer + "final_layer_norm.bias", "F16", (o.dim,))] + shapes[0]
    save_json(o.folder, "model.safetensors.index.json", {"metadata": {}, "weight_map": {
        shape[0]: name for name, list_ in zip(names, shapes) for shape in list_}})

    model = Model(o)
    tokens, positions = model.tables()
    one, zero = np.ones(o.dim, np.float16), np.zeros(o.dim, np.float16)
    ids = model.random.integers(4, o.vocab, o.tokens)
    h = tokens[ids].astype(np.float32) + positions[2:2 + o.tokens]
    selector, figures = [], {"recalls": [], "predicted_fractions": [], "active_fractions": []}
    for group, name, list_ in zip(groups, names, shapes):
        file = Safetensors(os.path.join(o.folder, name), list_)
        if group.start == 0:
            for suffix, values in [("embed_tokens.weight", tokens), ("embed_positions.weight", positions),
                                   ("final_layer_norm.weight", one), ("final_layer_norm.bias", zero)]:
                file.write(outer + suffix, values)
        for n in group:
            w, bias, (a, b, predictor_bias) = model.layer()
            prefix = f"{outer}layers.{n}."
            for key in ["q", "k", "v", "out"]:
                file.write(f"{prefix}self_attn.{key}_proj.weight", w[key])
                file.write(f"{prefix}self_attn.{key}_proj.bias", zero)
            for norm in ["self_attn_layer_norm", "final_layer_norm"]:
                file.write(f"{prefix}{norm}.weight", one)
                file.write(f"{prefix}{norm}.bias", zero)
            file.write(prefix + "fc1.weight", w["fc1"])
            file.write(prefix + "fc1.bias", bias)
            file.write(prefix + "fc2.weight", w["fc2"])
            file.write(prefix + "fc2.bias", zero)
            selector += [(f"blk.{n}.ffn_predictor_a.weight", "F16", a),
                         (f"blk.{n}.ffn_predictor_b.weight", "F16", b),
                         (f"blk.{n}.ffn_predictor.bias", "F32", predictor_bias)]
            # The layer as it runs, on the weights as they were rounded.
            h = h + attention(layer_norm(h), w["q"], w["k"], w["v"], o.heads) @ w["out"].astype(np.float32).T
            x = layer_norm(h)
            y = np.maximum(x @ w["fc1"].astype(np.float32).T + bias.astype(np.float32), 0)
            active = y > 0
            predicted = x @ a.astype(np.float32).T @ b.astype(np.float32).T + predictor_bias > 0
            h = h + y @ w["fc2"].astype(np.float32).T
            recall = float((active & predicted).sum() / max(1, active.sum()))
            figures["recalls"].append(recall)
            figures["predicted_fractions"].append(float(predicted.mean()))
            figures["active_fractions"].append(float(active.mean()))
            print(f"layer {n}: active {active.mean():.4f}, predicted {predicted.mean():.4f}, newly"
                  f" predicted {newly_active(predicted):.4f}, recall {recall:.4f},"
                  f" residual {h.std():.2f}", flush=True)
    logits = layer_norm(h[-1:]) @ tokens.astype(np.float32).T
    print(f"logits: finite {bool(np.isfinite(logits).all())}, deviation {logits.std():.2f}")
    metadata = {"model_identity": o.identity or "0" * 16,
                **{key: json.dumps(value) for key, value in figures.items()}}
    write_safetensors(os.path.join(o.folder, "selector.safetensors"), metadata, selector)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--set-identity", nargs=2, metavar=("FOLDER", "HEX"))
    parser.add_argument("--identity", help="the image's sourceIdentity, of flashinfer-inspect --plan --json")
    for name, value in [("layers", 32), ("dim", 4096), ("ffn", 16384), ("heads", 32), ("vocab", 50272),
                        ("positions", 2048), ("rank", 128), ("seed", 1), ("tokens", 60)]:
        parser.add_argument("--" + name, type=int, default=value)
    parser.add_argument("--correlation", type=float, default=0.86, help="of positions, from one to the next")
    o = parser.parse_args()
    if o.set_identity:
        path = os.path.join(o.set_identity[0], "selector.safetensors")
        metadata, tensors = read_safetensors(path)
        write_safetensors(path, {**metadata, "model_identity": o.set_identity[1]}, tensors)
    elif o.folder:
        make(o)
    else:
        parser.error("a folder is needed")


if __name__ == "__main__":
    main()
