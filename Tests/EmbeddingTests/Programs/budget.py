"""Uses of a file that is larger than the budget: prints the process's peak, the budget, and how many were refused.

usage: budget.py FILE MODEL BUDGET USE...; uses are KIND:TENSOR:COUNT, as BudgetTests.swift lists them
"""
import mmap
import sys

import flashinfer_ssd
import numpy as np


def peak():
    """The largest resident set so far, in bytes."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM:"))


def use(model, kind, tensor, count):
    """Does one thing with the file."""
    numbers = [(row * 7919 + tensor.index) % tensor.row_count for row in range(count)]
    if kind == "load":
        model.load(tensor).sum()
    elif kind == "floats":
        model.load(tensor, dequantise=True)
    elif kind == "pieces":
        for piece in model.stream([tensor]):
            piece.bytes.sum()
    elif kind == "pieceFloats":
        for piece in model.stream([tensor]):
            piece.dequantise()
    elif kind == "rows":
        model.load_rows(tensor, numbers)
    elif kind == "rowFloats":
        model.load_rows(tensor, numbers, dequantise=True)
    elif kind == "into":
        rows = [tensor.rows(0, count)]
        memory = mmap.mmap(-1, model.load_byte_count(rows))
        model.load_into(memory, rows)
    elif kind == "prefetch":
        model.prefetch([tensor])
        model.load_parts([tensor])
    elif kind == "abandon":
        model.prefetch([tensor])
        model.cancel_prefetch([tensor])
    elif kind == "hold":
        kept = [model.load(name) for name in model.keys()]
        assert not kept, "all tensors together are larger than the budget"
    else:
        raise ValueError(kind)


path, text_model, budget = sys.argv[1], sys.argv[2], int(sys.argv[3])
# What NumPy loads when it is first used.
np.linalg.norm(np.arange(10, dtype=np.float32))
refused = 0
model = None
for argument in sys.argv[4:]:
    kind, number, count = argument.split(":")
    if kind == "generate":
        if model:
            model.close()
        model = None
        with flashinfer_ssd.Generator(text_model, ram=budget) as generator:
            list(generator.generate("the", max_tokens=int(count)))
        continue
    if model is None:
        model = flashinfer_ssd.open(path, ram=budget, caller="8MiB", piece="2MiB", stream="12MiB")
    try:
        use(model, kind, model.tensors[int(number)], int(count))
    except flashinfer_ssd.NotEnoughMemory:
        refused += 1
print(peak(), budget, refused)
