"""Tensors of files larger than memory, as fast as the drive gives them, within a memory budget.

    import flashinfer

    with flashinfer.open("model.gguf", ram="2GiB") as model:
        for tensor in model:
            print(tensor.name, tensor.type, tensor.shape)
        for piece in model.stream():
            print(piece.tensor.name, piece.array.nbytes)
"""
from ._answer import Answer
from ._errors import (BadData, Busy, Cancelled, Closed, FlashInferError, Forked, Invalid, NoSuchFile,
                      NotEnoughMemory, NotFound, NotReadable)
from ._generator import Generator, chat, generate
from ._loader import Model, Piece, Plan, Statistics, Tensor, open

__all__ = ["Answer", "BadData", "Busy", "Cancelled", "Closed", "FlashInferError", "Forked", "Generator", "Invalid",
           "Model", "NoSuchFile", "NotEnoughMemory", "NotFound", "NotReadable", "Piece", "Plan", "Statistics",
           "Tensor", "chat", "generate", "open"]
