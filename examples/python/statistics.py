#!/usr/bin/env python3
"""Minimum, maximum, mean and deviation of every tensor of a file that need not fit in memory.

usage: statistics.py MODEL [--ram 200MiB]
"""
from __future__ import annotations

import argparse
import sys

import flashinfer_ssd
import numpy as np

#: Rows whose floats are looked at together take at most so many bytes.
SLICE_BYTES = 4 << 20


class Moments:
    """Running extremes and moments of a tensor's elements."""

    def __init__(self) -> None:
        self.count, self.sum, self.squares = 0, 0.0, 0.0
        self.least, self.most = np.inf, -np.inf

    def add(self, values: np.ndarray) -> None:
        if not values.size:
            return
        self.count += values.size
        self.sum += float(values.sum(dtype=np.float64))
        self.squares += float(np.square(values, dtype=np.float64).sum())
        self.least = min(self.least, float(values.min()))
        self.most = max(self.most, float(values.max()))

    def __str__(self) -> str:
        mean = self.sum / max(1, self.count)
        deviation = max(0.0, self.squares / max(1, self.count) - mean * mean) ** 0.5
        return f"{self.least:12.5g} {self.most:12.5g} {mean:12.5g} {deviation:12.5g}"


def progress(done: int, total: int) -> None:
    """Draws the bar, on terminals."""
    if sys.stderr.isatty():
        filled = 40 * done // max(1, total)
        print(f"\r[{'#' * filled}{'.' * (40 - filled)}] {100 * done // max(1, total):3d} %", end="", file=sys.stderr)


def peak_mebibytes() -> int:
    """The largest resident set of this program so far."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) >> 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--ram", default="200MiB")
    arguments = parser.parse_args()
    try:
        # NumPy needs some memory for its own work.
        with flashinfer_ssd.open(arguments.model, ram=arguments.ram, caller="48MiB", piece="1MiB") as model:
            total = sum(tensor.byte_count for tensor in model)
            moments = {tensor.name: Moments() for tensor in model}
            done = 0
            for piece in model.stream():
                values = piece.dequantise().reshape(-1)
                for start in range(0, values.size, SLICE_BYTES // 8):
                    moments[piece.tensor.name].add(values[start:start + SLICE_BYTES // 8])
                done += piece.bytes.nbytes
                progress(done, total)
            if sys.stderr.isatty():
                print(file=sys.stderr)
            print(f"{'least':>12} {'most':>12} {'mean':>12} {'deviation':>12}  tensor")
            for name, found in moments.items():
                print(found, "", name)
    except flashinfer_ssd.FlashInferError as failure:
        print(f"statistics.py: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"{total} bytes of tensors, at most {peak_mebibytes()} MiB in memory", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
