"""What files say beside their tensors."""
from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator, Mapping
from typing import Union

import numpy as np
import numpy.typing as npt

from . import _native
from ._errors import NotFound
from ._native import call, text

#: A value; arrays of numbers are NumPy's.
Value = Union[int, float, bool, str, "list[str]", "npt.NDArray[np.generic]"]

NUMPY_TYPES = {"uint8": "u1", "int8": "i1", "uint16": "<u2", "int16": "<i2", "uint32": "<u4", "int32": "<i4",
               "uint64": "<u8", "int64": "<i8", "float32": "<f4", "float64": "<f8", "bool": "?"}


class Metadata(Mapping[str, Value]):
    """The keys of a GGUF file, or the texts of a safetensors file's `__metadata__`; flash images have none.

    Values are read from the file when they are asked for. Where files of a folder have the same key, the first one's
    counts.

    >>> import flashinfer_ssd
    >>> with flashinfer_ssd.open("model.gguf") as model:
    ...     model.metadata["general.architecture"], model.metadata.type("llama.block_count")
    ('llama', 'uint32')
    """

    def __init__(self, handle: ctypes.c_void_p) -> None:
        self._handle = handle
        count = ctypes.c_uint64()
        call("metadata_count", handle, ctypes.byref(count))
        self._entries: dict[str, _native.Metadata] = {}
        self._indexes: dict[str, int] = {}
        for index in range(count.value):
            entry = _native.Metadata()
            call("metadata_at", handle, index, ctypes.byref(entry))
            self._indexes.setdefault(entry.key.decode(), index)
            self._entries.setdefault(entry.key.decode(), entry)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __repr__(self) -> str:
        return f"<Metadata: {len(self)} keys>"

    def _entry(self, key: str) -> _native.Metadata:
        if key not in self._entries:
            index = ctypes.c_uint64()
            # The library says which file has no such key.
            call("metadata_find", self._handle, text(key, "key"), ctypes.byref(index))
            raise NotFound(12, f"there is no metadata key {key!r}")
        return self._entries[key]

    def type(self, key: str) -> str:
        """The type of a value, such as `uint32` or `array of string`."""
        entry = self._entry(key)
        name: str = entry.type.decode()
        return f"array of {name}" if entry.is_array else name

    def __getitem__(self, key: str) -> Value:
        entry = self._entry(key)
        values = ctypes.create_string_buffer(max(1, entry.byte_count))
        call("metadata_read", self._handle, self._indexes[key], values, entry.byte_count)
        content = values.raw[:entry.byte_count]
        if entry.type == b"string":
            return _texts(content) if entry.is_array else content.decode("utf-8", "replace")
        numbers = np.frombuffer(content, dtype=NUMPY_TYPES[entry.type.decode()])
        return numbers if entry.is_array else numbers[0].item()


def _texts(content: bytes) -> list[str]:
    """An array of texts, each with its length before it."""
    found = []
    start = 0
    while start < len(content):
        length, = struct.unpack_from("<Q", content, start)
        found.append(content[start + 8:start + 8 + length].decode("utf-8", "replace"))
        start += 8 + length
    return found
