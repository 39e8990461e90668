"""Tensors as a file describes them, parts of them to ask for, and their bytes in memory."""
from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from . import _native
from ._native import call, unsigned

if TYPE_CHECKING:
    from ._loader import Model

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]

#: Types that NumPy has; others arrive as their bytes.
NUMPY_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
               "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?", "C64": "<c8"}

#: The count of rows that reaches to the end of a part.
ALL_ROWS = 2**64 - 1


@dataclass(frozen=True)
class Rows:
    """Rows of a tensor, or of one matrix of a stacked one, for `stream`, `prefetch` and `load_parts`."""

    #: Number of the tensor in the file.
    tensor: int
    part: int = 0
    first: int = 0
    count: int = ALL_ROWS


@dataclass(frozen=True)
class Tensor:
    """What a file says about one tensor."""

    #: Number in the file.
    index: int
    name: str
    #: `F32`, `BF16`, `I64`, `Q4_K`, …
    type: str
    #: Outermost dimension first.
    shape: tuple[int, ...]
    #: Bytes in the file.
    byte_count: int
    #: Matrices stacked in the tensor, as experts are; 1 for a plain one.
    part_count: int
    #: Whether sixteen rows are interleaved (flash images).
    is_interleaved: bool
    #: Elements and bytes of one block of a quantised type; 1 element otherwise.
    block_element_count: int
    block_byte_count: int
    #: Elements of a row.
    column_count: int
    #: Rows of each part.
    row_count: int
    #: Number in `Model.files`, the byte of that file where part 0 begins, and bytes from one part to the next.
    file: int
    file_offset: int
    part_stride: int

    @property
    def dtype(self) -> np.dtype[np.generic] | None:
        """NumPy's type of the elements as they lie in memory; None where arrays are of bytes."""
        name = NUMPY_TYPES.get(self.type)
        return None if name is None or self.is_interleaved else np.dtype(name)

    @property
    def row_byte_count(self) -> int:
        """Bytes of a row that is not interleaved."""
        return self.column_count // self.block_element_count * self.block_byte_count

    @property
    def part_shape(self) -> tuple[int, ...]:
        """Shape of one part."""
        return self.shape if self.part_count == 1 else self.shape[-2:]

    def rows(self, first: int, count: int = 1, part: int = 0) -> Rows:
        """Some of its rows, to be streamed or loaded.

        >>> import flashinfer_ssd
        >>> with flashinfer_ssd.open("model.safetensors") as model:
        ...     model.load_parts([model.tensor("second").rows(1, 2)])
        [<Piece of second: F32 [3, 4]: rows 1 to 3, 32 bytes>]
        """
        return Rows(self.index, unsigned(part, "part"), unsigned(first, "first"), unsigned(count, "count"))

    def __str__(self) -> str:
        return f"{self.name}: {self.type} {list(self.shape)}"


class Tensors(Sequence[Tensor]):
    """A file's tensors, each described when it is first looked at: there may be very many."""

    def __init__(self, handle: ctypes.c_void_p) -> None:
        count = ctypes.c_uint64()
        call("tensor_count", handle, ctypes.byref(count))
        self._handle = handle
        self._known: list[Tensor | None] = [None] * count.value

    def __len__(self) -> int:
        return len(self._known)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        known = self._known[index]
        if known is None:
            place = index % len(self)
            native = _native.Tensor()
            call("tensor_at", self._handle, place, ctypes.byref(native))
            known = Tensor(place, native.name.decode(), native.type.decode(),
                           tuple(native.shape[:native.dimension_count]), native.byte_count, native.part_count,
                           native.layout == 1, native.block_element_count, native.block_byte_count,
                           native.column_count, native.part_row_count, native.file, native.file_offset,
                           native.part_stride)
            self._known[place] = known
        return known


def view(address: int, byte_count: int, keeper: object) -> npt.NDArray[np.uint8]:
    """Memory as an array of bytes, which keeps `keeper` as long as any array over it is used."""
    if not byte_count:
        return np.empty(0, dtype=np.uint8)
    memory = (ctypes.c_ubyte * byte_count).from_address(address)
    setattr(memory, "keeper", keeper)
    return np.frombuffer(memoryview(memory), dtype=np.uint8)


class Piece:
    """Bytes of one tensor in memory: all of a part, or some rows of it.

    Arrays over it need no copy and stay valid as long as they are used, also after the model is closed; but a
    stream has less room to read ahead while its pieces are in use.
    """

    def __init__(self, model: Model, tensor: Tensor, native: _native.Piece, keeper: object) -> None:
        self._model = model
        self.tensor = tensor
        #: Which matrix of a stacked tensor.
        self.part = int(native.part)
        #: Bytes of the part before these.
        self.byte_offset = int(native.byte_offset)
        #: Whether the part, or what was asked for of it, ends with these.
        self.is_last = bool(native.is_last)
        #: Rows of the part before the piece, and whole rows in it: none where a row is longer.
        self.first_row = int(native.first_row)
        self.row_count = int(native.row_count)
        self._is_whole = native.byte_count == tensor.byte_count // tensor.part_count
        self.bytes = view(native.data, native.byte_count, keeper)
        self.bytes.flags.writeable = False

    def __repr__(self) -> str:
        rows = "all" if self._is_whole else f"rows {self.first_row} to {self.first_row + self.row_count}"
        part = f", part {self.part}" if self.tensor.part_count > 1 else ""
        return f"<Piece of {self.tensor}{part}: {rows}, {self.bytes.size} bytes>"

    @property
    def _shape(self) -> tuple[int, ...]:
        """Shape of its elements: the part's, rows where they are some of them, otherwise flat."""
        if self._is_whole:
            return self.tensor.part_shape
        if self.tensor.is_interleaved or self.row_count * self.tensor.row_byte_count == self.bytes.size:
            return (self.row_count, self.tensor.column_count)
        return (self.bytes.size // self.tensor.block_byte_count * self.tensor.block_element_count,)

    @property
    def array(self) -> Array:
        """The elements without a copy; bytes where NumPy has no such type or rows are interleaved."""
        dtype = self.tensor.dtype
        if dtype is not None:
            return (self.bytes.view(dtype) if self.bytes.size else np.empty(0, dtype)).reshape(self._shape)
        width = self.tensor.row_byte_count
        if self.tensor.is_interleaved or not width or len(self.bytes) % width:
            return self.bytes
        return self.bytes.reshape(-1, width)

    def dequantise(self) -> Floats:
        """The elements as 32-bit floats, rows one after the other: a copy, in memory of the model's budget."""
        shape = self._shape
        values = self._model._allocate(math.prod(shape))
        self._convert(values)
        return values.reshape(shape)

    def _convert(self, values: Floats, first: int = 0, count: int | None = None) -> None:
        """Writes its elements, or those of rows counted from its first, as floats into a flat array."""
        tensor = self.tensor
        columns = tensor.column_count
        part = slice(None) if count is None else slice(first * columns, (first + count) * columns)
        if tensor.dtype is not None:
            np.copyto(values, self.array.reshape(-1)[part], casting="unsafe")
        elif tensor.type == "BF16" and not tensor.is_interleaved:
            np.left_shift(self.bytes.view("<u2")[part], np.uint32(16), out=values.view(np.uint32), dtype=np.uint32)
        elif not tensor.is_interleaved and self.row_count * tensor.row_byte_count != len(self.bytes):
            raise ValueError(f"this piece of {tensor.name} is less than a row: open the file with a larger piece")
        elif values.size:
            call("dequantise", self._model._open_handle, tensor.index, self.bytes.ctypes.data, len(self.bytes), first,
                 self.row_count if count is None else count, values.ctypes.data, values.size)
