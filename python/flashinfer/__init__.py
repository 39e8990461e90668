"""Tensors of files larger than memory, as fast as the drive gives them, within a memory budget.

    import flashinfer

    with flashinfer.open("model.gguf", ram="2GiB") as model:
        for tensor in model:
            print(tensor.name, tensor.type, tensor.shape)
        for piece in model.stream():
            print(piece.tensor.name, piece.array.nbytes)
"""
from ._errors import (BadData, Busy, Cancelled, Closed, FlashInferError, Forked, NoSuchFile, NotEnoughMemory,
                      NotFound)
from ._generator import Generator, generate
from ._loader import Model, Piece, Plan, Statistics, Tensor, open

__all__ = ["BadData", "Busy", "Cancelled", "Closed", "FlashInferError", "Forked", "Generator", "Model",
           "NoSuchFile", "NotEnoughMemory", "NotFound", "Piece", "Plan", "Statistics", "Tensor", "generate", "open"]
