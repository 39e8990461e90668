"""Tensors of files larger than memory, as fast as the drive gives them, within a memory budget.

    import flashinfer_ssd

    with flashinfer_ssd.open("model.gguf", ram="300MiB") as model:
        for tensor in model:
            print(tensor.name, tensor.type, tensor.shape)
        for piece in model.stream():
            print(piece.tensor.name, piece.array.nbytes)
"""
from ._answer import Answer
from ._engine import Engine, EngineState, Sequence, Token
from ._errors import (BadData, Busy, Cancelled, Closed, FlashInferError, Forked, Invalid, NoSuchFile,
                      NotEnoughMemory, NotFound, NotReadable)
from ._generator import Generator, chat, generate
from ._loader import Model, Plan, Statistics, open
from ._metadata import Metadata
from ._native import library
from ._tensors import Piece, Rows, Tensor

#: The version of the package and of its library.
__version__: str = library.flashinfer_version().decode()

__all__ = ["Answer", "BadData", "Busy", "Cancelled", "Closed", "Engine", "EngineState", "FlashInferError", "Forked",
           "Generator", "Invalid", "Metadata", "Model", "NoSuchFile", "NotEnoughMemory", "NotFound", "NotReadable", "Piece",
           "Plan", "Rows", "Sequence", "Statistics", "Tensor", "Token", "__version__", "chat", "generate", "open"]

# Messages and documentation name what is public by where users find it.
for _name in __all__:
    if hasattr(globals()[_name], "__module__"):
        globals()[_name].__module__ = __name__
del _name
