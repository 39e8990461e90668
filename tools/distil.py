"""Makes a model of fewer layers answer as a larger one does: a draft for speculation.

tools/distil calls it; needs numpy, torch and gguf. The text it learns from is the model's own: it continues the beginning of a
user's turn with questions (arXiv:2406.08464) and answers them. Layer j of the draft stands for a run of the model's layers and
begins as the first of them. Its down projection is fitted first, by least squares on the draft's own states, to the difference
that the whole run makes; then all layers learn the model's probabilities (Kullback-Leibler) until the time is over. Embeddings,
output stay the model's. Threads add in no fixed order: another run makes another draft.
"""
import json
import os
import struct
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from torch.nn import functional

from gguf_file import Arguments, GGUFFile, Refusal, Tensor, UINT32, check_output, run, text_value, write

F16, F32 = 1, 0
# How a user's turn may begin; the model goes on.
OPENERS = ("", "", "", "Write a Python", "Write a JavaScript", "Write a C function", "Write a JSON", "Make a table", "List",
           "Write an SQL", "Write a shell script", "Explain", "Write a story", "Describe", "Write an HTML page", "Why",
           "Rewrite this text:", "Here is some code:", "Summarise the following text:", "Write a letter")
MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
LENGTH, BATCH, HELD_OUT, FITTED = 256, 8, 24, 160


class OwnText:
    """Prompts that a model makes and answers, as tokens."""

    def __init__(self, binaries, model):
        self.binaries, self.model = binaries, model
        framed = self.program("flashinfer-inspect", model, "--render", "QUESTION").rpartition("\n\n")[0]
        self.before, _, self.after = framed.partition("QUESTION")
        if not self.after:
            raise Refusal(f"{model}: its chat template does not frame a prompt")

    def program(self, name, *arguments, input=""):
        result = subprocess.run([f"{self.binaries}/{name}", *arguments], input=input, stdout=subprocess.PIPE, text=True)
        if result.returncode not in (0, 65):
            raise Refusal(f"{name} ended with {result.returncode}", 1)
        return result.stdout

    def answers(self, lines, *options):
        out = self.program("flashinfer-run", self.model, "--prompts", "-", "--output", "-", "--quiet", *options,
                           input="".join(json.dumps(line) + "\n" for line in lines))
        results = [json.loads(line) for line in out.splitlines()]
        return sorted((result for result in results if "text" in result), key=lambda result: result["id"])

    def sequences(self, count):
        openers = [OPENERS[i % len(OPENERS)] for i in range(count)]
        asked = self.answers([{"id": i, "prompt": self.before + opener, "max_tokens": 90, "temperature": 1, "seed": i}
                              for i, opener in enumerate(openers)], "--raw")
        questions = [(openers[result["id"]] + result["text"]).strip() for result in asked]
        answered = self.answers([{"id": i, "prompt": question, "max_tokens": 210, "temperature": 0.7 * (i % 2), "seed": i}
                                 for i, question in enumerate(questions)])
        text = "".join(self.before + questions[result["id"]] + self.after + result["text"] for result in answered)
        # The last token of what comes before may be another beside a question.
        return self.split(self.tokenised(text), self.tokenised(self.before)[:-1])

    def tokenised(self, text):
        return json.loads(self.program("flashinfer-inspect", self.model, "--tokenize", "-", "--special", input=text))

    @staticmethod
    def split(tokens, first):
        """Texts that all begin with some tokens, of which the very first is a control token and so never merged."""
        starts = [i for i, token in enumerate(tokens) if token == first[0] and tokens[i:i + len(first)] == first]
        return [tokens[start:end] for start, end in zip(starts, [*starts[1:], len(tokens)])]


class Llama:
    """A llama in PyTorch: its table, its output and a list of layers."""

    def __init__(self, path):
        file = GGUFFile(path)
        if file.text("general.architecture") != "llama" or "rope_freqs.weight" in file.tensors:
            raise Refusal(f"{path}: only a llama without factors of RoPE is distilled")
        def number(name, default=None): return file.number(f"llama.{name}", default)
        self.count, self.width, self.heads = number("block_count"), number("embedding_length"), number("attention.head_count")
        self.kv_heads = number("attention.head_count_kv", self.heads)
        self.length = number("attention.key_length", self.width // self.heads)
        self.epsilon, base = number("attention.layer_norm_rms_epsilon"), number("rope.freq_base", 10000.0)
        if number("rope.dimension_count", self.length) != self.length or "llama.rope.scaling.type" in file.fields:
            raise Refusal(f"{path}: only a llama with plain RoPE is distilled")
        tensors = {tensor.name: self.values(tensor) for tensor in GGUFReader(path).tensors}
        self.table, self.norm = tensors["token_embd.weight"], tensors["output_norm.weight"]
        self.output = tensors.get("output.weight", self.table)
        names = (*MATRICES, "attn_norm", "ffn_norm")
        self.layers = [{name: tensors[f"blk.{i}.{name}.weight"] for name in names} for i in range(self.count)]
        angles = torch.arange(LENGTH).float()[:, None] * base ** (-torch.arange(0, self.length, 2).float() / self.length)
        self.cos, self.sin = angles.cos(), angles.sin()

    @staticmethod
    def values(tensor):
        values = dequantize(tensor.data, tensor.tensor_type).reshape([int(n) for n in tensor.shape][::-1])
        return torch.from_numpy(np.ascontiguousarray(values.astype(np.float32)))

    def normed(self, x, weight):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon) * weight

    def rotated(self, x):
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack((a * self.cos - b * self.sin, a * self.sin + b * self.cos), -1).flatten(-2)

    def halves(self, layer, x):
        """The stream after a layer's attention, and its FFN's activations."""
        y = self.normed(x, layer["attn_norm"])
        def split(name, heads): return (y @ layer[name].T).view(*x.shape[:2], heads, self.length).transpose(1, 2)
        q, k, v = split("attn_q", self.heads), split("attn_k", self.kv_heads), split("attn_v", self.kv_heads)
        group = self.heads // self.kv_heads
        k, v = self.rotated(k).repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        attended = functional.scaled_dot_product_attention(self.rotated(q), k, v, is_causal=True)
        x = (x + attended.transpose(1, 2).flatten(2) @ layer["attn_output"].T).float()
        y = self.normed(x, layer["ffn_norm"])
        return x, functional.silu(y @ layer["ffn_gate"].T) * (y @ layer["ffn_up"].T)

    def states(self, layers, tokens):
        """The stream after each layer, [batch, LENGTH, width]."""
        x = self.table[tokens]
        for layer in layers:
            x, activations = self.halves(layer, x)
            x = (x + activations @ layer["ffn_down"].T).float()
            yield x

    def last(self, layers, tokens):
        for state in self.states(layers, tokens): pass
        return state

    def logits(self, states, norm):
        return (self.normed(states, norm) @ self.output.T).float()


class Distillation:
    """A draft that begins as some of a model's layers, and the tokens that it learns from."""

    def __init__(self, model, count, sequences):
        self.model, self.started = model, time.monotonic()
        self.firsts = [j * model.count // count for j in range(count)]
        self.lasts = [(j + 1) * model.count // count - 1 for j in range(count)]
        self.layers = [{name: values.clone() for name, values in model.layers[first].items()} for first in self.firsts]
        self.norm = model.norm.clone()
        sequences = [tokens[:LENGTH] for tokens in sequences if len(tokens) > 1]
        if len(sequences) < HELD_OUT + FITTED:
            raise Refusal(f"{len(sequences)} of the texts came about, which is too few to learn from", 1)
        self.tokens = torch.zeros(len(sequences), LENGTH, dtype=torch.long)
        self.mask = torch.zeros(len(sequences), LENGTH, dtype=torch.bool)
        for i, tokens in enumerate(sequences):
            self.tokens[i, :len(tokens)] = torch.tensor(tokens)
            self.mask[i, :len(tokens)] = True

    def say(self, text):
        print(f"{time.monotonic() - self.started:6.0f} s  {text}", file=sys.stderr, flush=True)

    @torch.no_grad()
    def agreement(self):
        """The share of places in texts that it did not learn from at which both prefer the same token."""
        same = places = 0
        for tokens, mask in zip(self.tokens[:HELD_OUT].split(BATCH), self.mask[:HELD_OUT].split(BATCH)):
            with torch.autocast("cpu", torch.bfloat16):
                own = self.model.logits(self.model.last(self.layers, tokens)[mask], self.norm).argmax(-1)
                right = self.model.logits(self.model.last(self.model.layers, tokens)[mask], self.model.norm).argmax(-1)
            same, places = same + (own == right).sum().item(), places + len(right)
        return same / places

    @torch.no_grad()
    def fit(self):
        """Down projections by ridge regression, each token counting by its state's size, the first not at all."""
        part = slice(HELD_OUT, HELD_OUT + FITTED)
        tokens, mask = self.tokens[part], self.mask[part].clone()
        mask[:, 0] = False
        targets = []
        with torch.autocast("cpu", torch.bfloat16):
            for some in tokens.split(BATCH):
                kept = [state for i, state in enumerate(self.model.states(self.model.layers, some)) if i in self.lasts]
                targets.append(torch.stack(kept).bfloat16())
        x = self.model.table[tokens]
        for j, layer in enumerate(self.layers):
            with torch.autocast("cpu", torch.bfloat16):
                halves = [self.model.halves(layer, some) for some in x.split(BATCH)]
            x, activations = torch.cat([h[0] for h in halves]), torch.cat([h[1] for h in halves]).float()
            target = torch.cat([some[j] for some in targets]).float()
            weight = target[mask].pow(2).mean(-1, keepdim=True).rsqrt()
            a, d = activations[mask] * weight, (target - x)[mask] * weight
            products, ridge = a.T @ a, layer["ffn_down"].T
            strength = 0.02 * products.diagonal().mean()
            fitted = torch.linalg.solve(products + strength * torch.eye(len(products)), a.T @ d + strength * ridge)
            layer["ffn_down"] = fitted.T.contiguous()
            x = x + activations @ fitted

    def learn(self, minutes):
        values = [value.requires_grad_() for layer in self.layers for value in layer.values()] + [self.norm.requires_grad_()]
        optimiser = torch.optim.AdamW(values, betas=(0.9, 0.98), weight_decay=0)
        begin, step, order = time.monotonic(), 0, []
        while (share := (time.monotonic() - begin) / (60 * minutes)) < 1:
            order = order or list((HELD_OUT + torch.randperm(len(self.tokens) - HELD_OUT)).split(BATCH))
            chosen = order.pop()
            tokens, mask = self.tokens[chosen], self.mask[chosen]
            for group in optimiser.param_groups: group["lr"] = 5e-4 * min(1, (step + 1) / 10) * max(0.02, 1 - share)
            with torch.autocast("cpu", torch.bfloat16):
                with torch.no_grad():
                    right = self.model.logits(self.model.last(self.model.layers, tokens)[mask], self.model.norm).log_softmax(-1)
                own = self.model.logits(self.model.last(self.layers, tokens)[mask], self.norm).log_softmax(-1)
            loss = functional.kl_div(own, right, log_target=True, reduction="batchmean")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(values, 1)
            optimiser.step()
            step += 1
            if step % 20 == 0: self.say(f"step {step}: divergence {loss.item():.3f}")


def save(source, path, distillation):
    """The draft as a GGUF file: matrices in F16, table and output as the model's file has them."""
    file, tensors, data = GGUFFile(source), [], {}
    fields = dict(file.fields)
    fields["llama.block_count"] = UINT32, struct.pack("<I", len(distillation.layers))
    fields["general.name"] = text_value(f"{file.text('general.name')} ({len(distillation.layers)} layers, distilled)".lstrip())
    for name in ("general.size_label", "general.file_type"): fields.pop(name, None)

    def add(name, values):
        values = values.detach().numpy()
        tensors.append(Tensor(name, values.shape[::-1], F16 if values.ndim > 1 else F32))
        data[name] = values.astype("<f2" if values.ndim > 1 else "<f4").tobytes()

    for name in ("token_embd.weight", "output.weight"):
        if name in file.tensors:
            tensors.append(file.tensors[name])
            data[name] = file.rows(file.tensors[name], 0, file.tensors[name].rows)
    add("output_norm.weight", distillation.norm)
    for j, layer in enumerate(distillation.layers):
        for name, values in layer.items(): add(f"blk.{j}.{name}.weight", values)
    write(path, fields, tensors, file.alignment, lambda tensor: [data[tensor.name]])


def main():
    parser = Arguments(__doc__)
    parser.prog = "tools/distil"
    parser.add_argument("input"); parser.add_argument("output"); parser.add_argument("--binaries", required=True)
    parser.add_argument("--layers", type=int); parser.add_argument("--texts", type=int, default=1200)
    parser.add_argument("--minutes", type=float, default=30); parser.add_argument("--force", action="store_true")
    arguments = parser.parse_args()
    model = Llama(arguments.input)
    check_output(arguments.input, arguments.output, arguments.force)
    layers = arguments.layers or model.count // 2
    if not 1 <= layers <= model.count:
        raise Refusal(f"--layers must be between 1 and {model.count}, the layers of {arguments.input}", 64)
    if arguments.texts < HELD_OUT + FITTED or arguments.minutes <= 0:
        raise Refusal(f"--texts must be at least {HELD_OUT + FITTED}, and --minutes above 0", 64)
    torch.manual_seed(1)
    sequences = OwnText(arguments.binaries, arguments.input).sequences(arguments.texts)
    distillation = Distillation(model, layers, sequences)
    distillation.say(f"{len(sequences)} texts, {distillation.mask.sum()} tokens; right: {distillation.agreement():.3f}")
    distillation.fit()
    distillation.say(f"fitted; right: {distillation.agreement():.3f}")
    distillation.learn(arguments.minutes)
    distillation.say(f"learnt; right: {distillation.agreement():.3f}")
    save(arguments.input, arguments.output, distillation)


if __name__ == "__main__":
    run(main)
