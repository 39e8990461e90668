"""Trains predictors of active FFN neurons and calibrates thresholds, from a file of activations.

tools/train-selector calls it; needs numpy, torch and safetensors. For each layer N a predictor of low
rank (arXiv:2312.11514, section 3.1) says from the FFN's input x that neuron i is active iff
(B (A x))[i] + bias[i] > 0; a threshold is the least |activation(gate)| of a neuron that is computed.
"""
import argparse
import json
import os
import stat
import sys
import tempfile
import time

import torch
from safetensors import safe_open
from safetensors.torch import save as serialize
from torch.nn import functional

ACTIVATIONS = {
    "relu": torch.relu,
    "silu": functional.silu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
}
BATCH = 1024


class Activations:
    """A file that `flashinfer-bench activations` wrote; its last eighth is held out."""

    def __init__(self, path):
        self.file = safe_open(path, "pt")
        self.metadata = self.file.metadata()
        self.layers = sum(name.endswith(".ffn_gate") for name in self.file.keys())
        self.tokens = self.file.get_slice("blk.0.ffn_gate").get_shape()[0]
        self.first_held_out = self.tokens - max(1, self.tokens // 8)
        self.activation = ACTIVATIONS[self.metadata["activation"]]

    def get(self, layer, name, held_out=False):
        rows = self.file.get_slice(f"blk.{layer}.ffn_{name}")
        first = self.first_held_out
        return (rows[first:] if held_out else rows[:first]).float()


class Predictor:
    """B A x + bias, which is above 0 where a neuron is predicted active."""

    def __init__(self, a, b, bias):
        self.a, self.b, self.bias = a, b, bias

    def __call__(self, x):
        return x @ self.a.T @ self.b.T + self.bias


def reduced_rank(x, gate, rank):
    """The predictor of the gate itself with the least squared error, scaled to log-odds roughly."""
    x_mean, gate_mean = x.mean(0), gate.mean(0)
    centred = x - x_mean
    covariance = centred.T @ centred / len(x)
    covariance += 1e-4 * covariance.diagonal().mean() * torch.eye(len(covariance))
    full = torch.linalg.solve(covariance, centred.T @ (gate - gate_mean) / len(x))  # [dim, F]
    # The leading right singular vectors of covariance^(1/2) full span the best outputs.
    half = torch.linalg.cholesky(covariance).T @ full
    values, vectors = torch.linalg.eigh(half @ half.T)
    directions = vectors[:, -rank:].T @ half / values[-rank:, None].clamp_min(1e-12).sqrt()
    a, b = directions @ full.T, directions.T
    bias = gate_mean - b @ (a @ x_mean)
    slope = 1.7 / ((gate - x @ a.T @ b.T - bias).std(0) + 1e-6)
    b, bias = b * slope[:, None], bias * slope
    balance = (a.norm() / b.norm()).sqrt()
    return Predictor(a / balance, b * balance, bias)


class Stakes:
    """What a predictor gains and pays, neuron by neuron.

    The gain of predicting an active neuron is its share of the token's energy, relu(gate)^2 over its
    sum, in units of a neuron's mean share. A neuron predicted in vain costs a read unless the window
    still holds it, which it does if it was active in one of about `memory` tokens before.
    """

    def __init__(self, gate, strength, memory, floor=0.03):
        self.strength = strength
        frequency = (gate > 0).float().mean(0)
        self.cost = ((1 - frequency) ** memory).clamp_min(floor)

    @staticmethod
    def shares(gate):
        energy = torch.relu(gate) ** 2
        return energy / energy.sum(1, keepdim=True).clamp_min(1e-20)

    def gains(self, gate):
        return self.strength * gate.shape[1] * self.shares(gate)


class Progress:
    """How far training has come: a line on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, layers, steps):
        self.total, self.done, self.start = layers * steps, 0, time.monotonic()
        self.last = self.start
        self.interactive = sys.stderr.isatty()

    def step(self):
        self.done += 1
        now = time.monotonic()
        if now - self.last < (0.2 if self.interactive else 10):
            return
        self.last = now
        left = (now - self.start) * (self.total / self.done - 1)
        line = f"training: {self.done} of {self.total} steps, {round(left)} s left"
        print(f"\r\033[K{line}" if self.interactive else line, end="" if self.interactive else "\n",
              file=sys.stderr, flush=True)

    def note(self, line):
        print(("\r\033[K" if self.interactive else "") + line, file=sys.stderr, flush=True)


def train(x, gate, rank, stakes, epochs, progress):
    """A predictor: least squares first, then logistic loss weighted by stakes, then the stakes."""
    predictor = reduced_rank(x, gate, rank)
    parameters = [predictor.a, predictor.b, predictor.bias]
    for parameter in parameters:
        parameter.requires_grad_()

    def logistic(z, part):
        gain = stakes.gains(part)
        vain = stakes.cost * (part <= 0)
        return functional.softplus(z) * (vain + gain) - gain * z

    def expected(z, part):
        return torch.sigmoid(z) * (stakes.cost - stakes.gains(part))

    for loss, rate in (logistic, 1e-2), (expected, 5e-3):
        optimiser = torch.optim.Adam(parameters, lr=rate, betas=(0.9, 0.98))
        steps = max(1, epochs * (len(x) // BATCH))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min((step + 1) / 10, 1) * max(0.02, 1 - step / steps))
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(BATCH):
                optimiser.zero_grad()
                loss(predictor(x[rows]), gate[rows]).mean().backward()
                optimiser.step()
                schedule.step()
                progress.step()
    for parameter in parameters:
        parameter.requires_grad_(False)
    return predictor


class Curve:
    """What every decision threshold of a layer's predictor misses and reads on held-out tokens."""

    POINTS = 512

    def __init__(self, z, gate, stakes, weight):
        order = z.flatten().argsort(descending=True)
        missed = 1 - stakes.shares(gate).flatten()[order].double().cumsum(0) / len(gate)
        read = stakes.cost.expand(z.shape).flatten()[order].double().cumsum(0) / z.numel()
        picks = torch.linspace(0, len(order) - 1, self.POINTS).long()
        self.thresholds = z.flatten()[order[picks]]
        self.missed, self.read, self.weight = missed[picks], read[picks], weight

    def best(self, price):
        """Index of the threshold with the least sum of reads and priced misses."""
        return int((self.read + price * self.weight * self.missed).argmin())


def thresholds(curves, recall):
    """Each layer's decision threshold, so that all reach `recall` with the fewest reads.

    Recall is that of energy; a layer counts by the share of its FFN in the residual stream.
    """
    total = sum(curve.weight for curve in curves)
    low, high = 1e-6, 1e9
    for _ in range(100):
        price = (low * high) ** 0.5
        picks = [curve.best(price) for curve in curves]
        missed = sum(float(c.missed[i]) * c.weight for c, i in zip(curves, picks)) / total
        low, high = (price, high) if missed > 1 - recall else (low, price)
    return [float(c.thresholds[c.best(high)]) for c in curves]


def train_layer(data, layer, arguments, progress):
    """A layer's predictor and the curve of its thresholds."""
    x, gate = data.get(layer, "input"), data.get(layer, "gate")
    rank = min(arguments.rank or x.shape[1] // 3, *x.shape)
    weight = float(data.get(layer, "share").clamp_max(1).mean())
    stakes = Stakes(gate, arguments.strength * weight, arguments.memory)
    predictor = train(x, gate, rank, stakes, arguments.epochs, progress)
    # What the file will hold is what is calibrated.
    predictor.a, predictor.b = predictor.a.half().float(), predictor.b.half().float()
    z = predictor(data.get(layer, "input", held_out=True))
    progress.note(f"layer {layer}: trained, rank {rank}")
    return predictor, Curve(z, data.get(layer, "gate", held_out=True), stakes, weight)


def report(data, predictors):
    """Prints what the predictors do on held-out tokens; columns of the file's metadata."""
    columns = {"recalls": [], "precisions": [], "predicted_fractions": [], "active_fractions": []}
    print("layer  recall  precision  predicted  active  missed energy")
    for layer, predictor in enumerate(predictors):
        gate = data.get(layer, "gate", held_out=True)
        predicted, active = predictor(data.get(layer, "input", held_out=True)) > 0, gate > 0
        hits = float((predicted & active).sum())
        row = [hits / max(1, float(active.sum())), hits / max(1, float(predicted.sum())),
               float(predicted.float().mean()), float(active.float().mean())]
        for column, value in zip(columns.values(), row):
            column.append(round(value, 5))
        missed = float((Stakes.shares(gate) * ~predicted).sum() / len(gate))
        print(f"{layer:5}  {row[0]:.4f}  {row[1]:9.4f}  {row[2]:9.4f}  {row[3]:.4f}  {missed:.6f}")
    means = [sum(column) / len(column) for column in columns.values()]
    print(f"  all  {means[0]:.4f}  {means[1]:9.4f}  {means[2]:9.4f}  {means[3]:.4f}")
    columns.pop("precisions")
    return {name: json.dumps(column) for name, column in columns.items()}


def train_predictors(data, arguments):
    """Tensors and metadata of all layers' predictors."""
    steps = 2 * arguments.epochs * -(-data.first_held_out // BATCH)
    progress = Progress(data.layers, steps)
    trained = [train_layer(data, layer, arguments, progress) for layer in range(data.layers)]
    predictors = [predictor for predictor, _ in trained]
    tensors = {}
    for layer, threshold in enumerate(thresholds([c for _, c in trained], arguments.recall)):
        predictor = predictors[layer]
        predictor.bias = predictor.bias - threshold
        name = f"blk.{layer}.ffn_predictor"
        tensors[f"{name}_a.weight"] = predictor.a.half().contiguous()
        tensors[f"{name}_b.weight"] = predictor.b.half().contiguous()
        tensors[f"{name}.bias"] = predictor.bias.contiguous()
    return tensors, report(data, predictors)


def calibrate_thresholds(data, fraction):
    """The least |activation(gate)| of each layer that keeps `fraction` of its neurons."""
    tensors = {}
    for layer in range(data.layers):
        values = data.activation(data.get(layer, "gate")).abs().flatten()
        kept = max(1, round(fraction * len(values)))
        threshold = values.kthvalue(len(values) - kept + 1).values
        tensors[f"blk.{layer}.ffn_threshold"] = threshold.reshape(1)
        held_out = data.activation(data.get(layer, "gate", held_out=True)).abs() >= threshold
        print(f"layer {layer}: |activation| >= {float(threshold):.6f} keeps "
              f"{float(held_out.float().mean()):.4f} of held-out neurons")
    return tensors, {"kept_fraction": str(fraction)}


def refuse(message):
    """Ends the program as the executables do where they are called wrongly."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(64)


def check_output(path, inputs):
    """Where `path` leads; ends the program where it is neither a regular file nor free, or an input."""
    target = os.path.realpath(path)
    if os.path.islink(path) and not os.path.exists(target):
        refuse(f"{path}: it is a link to nothing")
    if os.path.exists(target):
        if not stat.S_ISREG(os.stat(target).st_mode):
            refuse(f"{path}: only a regular file is replaced")
        if any(os.path.samefile(target, other) for other in inputs):
            refuse(f"{path}: it is the file being read")
    return target


def save(tensors, metadata, target):
    """Writes a file that has its name when it is complete and on the drive; otherwise nothing changes."""
    folder = os.path.dirname(target) or "."
    descriptor, part = tempfile.mkstemp(prefix=os.path.basename(target)[:200] + ".part-", dir=folder)
    try:
        if os.path.exists(target):
            mode = stat.S_IMODE(os.stat(target).st_mode)
        else:
            umask = os.umask(0)
            os.umask(umask)
            mode = 0o666 & ~umask
        content = serialize(tensors, metadata=metadata)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
        os.rename(part, target)
        part = None
        folder_descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder_descriptor)
        finally:
            os.close(folder_descriptor)
    finally:
        os.close(descriptor)
        if part is not None:
            os.unlink(part)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("activations", help="file of `flashinfer-bench activations`")
    parser.add_argument("--output", required=True)
    parser.add_argument("--rank", type=int, help="of the predictors (default: a third of dim)")
    parser.add_argument("--recall", type=float, default=0.9996,
                        help="share of the active neurons' energy to be predicted (default 0.9996)")
    parser.add_argument("--thresholds", type=float, metavar="FRACTION",
                        help="calibrate thresholds that keep this share of neurons")
    parser.add_argument("--epochs", type=int, default=3, help="of each of two stages of training")
    parser.add_argument("--strength", type=float, default=300,
                        help="price of missing energy against that of reads in training")
    parser.add_argument("--memory", type=float, default=6,
                        help="tokens for which the window remembers a neuron")
    arguments = parser.parse_args()
    target = check_output(arguments.output, [arguments.activations])
    torch.manual_seed(0)
    data = Activations(arguments.activations)
    tensors, metadata = {}, {"model_identity": data.metadata["model_identity"]}
    parts = []
    if data.metadata["activation"] == "relu":
        parts.append(train_predictors(data, arguments))
    if arguments.thresholds:
        parts.append(calibrate_thresholds(data, arguments.thresholds))
    if not parts:
        sys.exit("only ReLU has inactive neurons to predict: give --thresholds FRACTION")
    for part_tensors, part_metadata in parts:
        tensors.update(part_tensors)
        metadata.update(part_metadata)
    save(tensors, metadata, target)


if __name__ == "__main__":
    main()
