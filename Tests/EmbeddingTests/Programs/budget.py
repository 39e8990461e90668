"""Twenty uses of a file that is larger than the budget: prints the process's peak and the budget, in bytes.

usage: budget.py FILE BUDGET
"""
import random
import sys

import flashinfer_ssd
import numpy as np


def peak():
    """The largest resident set so far, in bytes."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM:"))


path, budget = sys.argv[1], int(sys.argv[2])
# What NumPy loads when it is first used.
np.linalg.norm(np.arange(10, dtype=np.float32))
chance = random.Random(5)
refused = 0
with flashinfer_ssd.open(path, ram=budget, caller="8MiB", piece="2MiB", stream="12MiB") as model:
    tensors = list(model)
    for use in range(20):
        tensor = chance.choice(tensors)
        try:
            if use % 5 == 0:
                for piece in model.stream([tensor]):
                    piece.dequantise()
            elif use % 5 == 1:
                model.load(tensor, dequantise=True)
            elif use % 5 == 2:
                model.load(tensor)
            elif use % 5 == 3:
                model.load_rows(tensor, [chance.randrange(tensor.row_count) for _ in range(100)], dequantise=True)
            else:
                kept = [model.load(name) for name in model.keys()]
        except flashinfer_ssd.NotEnoughMemory:
            refused += 1
print(peak(), budget, refused)
