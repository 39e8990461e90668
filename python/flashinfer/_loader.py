"""Files of tensors: what they hold, streams of their bytes, and single tensors as NumPy arrays."""
from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from . import _native
from ._closing import Closing
from ._errors import END, OK, FlashInferError, NotFound
from ._native import byte_count, call, system_path, text, unsigned

Array = npt.NDArray[np.generic]

#: Types that NumPy has; others arrive as their bytes.
NUMPY_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
               "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?", "C64": "<c8"}

#: How long a call may keep Python from noticing Ctrl-C.
WAIT_MILLISECONDS = 100


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

    @property
    def dtype(self) -> np.dtype[np.generic] | None:
        """NumPy's type of the elements as they lie in memory; None where arrays are of bytes."""
        name = NUMPY_TYPES.get(self.type)
        return None if name is None or self.is_interleaved else np.dtype(name)

    @property
    def column_count(self) -> int:
        """Elements of a row."""
        return self.shape[-1] if self.shape else 1

    @property
    def row_byte_count(self) -> int:
        """Bytes of a row that is not interleaved."""
        return self.column_count // self.block_element_count * self.block_byte_count

    @property
    def part_shape(self) -> tuple[int, ...]:
        """Shape of one part."""
        return self.shape if self.part_count == 1 else self.shape[-2:]


@dataclass(frozen=True)
class Plan:
    """Where a model's memory budget goes, in bytes."""

    budget: int
    process: int
    caller: int
    stream: int
    held: int
    piece: int
    read: int
    queue_depth: int


@dataclass(frozen=True)
class Statistics:
    """What the drive did for a model so far."""

    bytes_read: int
    requests: int
    retries: int
    busy_seconds: float
    wait_seconds: float
    mean_queue_depth: float


class Piece:
    """Bytes of one tensor in memory: all of a part, or some rows of it.

    Arrays over it need no copy and stay valid as long as they are used, also after the model is closed; but a
    stream has less room to read ahead while its pieces are in use.
    """

    def __init__(self, model: Model, tensor: Tensor, native: _native.Piece, hold: _native.Hold) -> None:
        self._model = model
        self.tensor = tensor
        #: Which matrix of a stacked tensor.
        self.part = int(native.part)
        #: Bytes of the part before these.
        self.byte_offset = int(native.byte_offset)
        #: Whether the part ends with these.
        self.is_last = bool(native.is_last)
        self._is_whole = self.is_last and self.byte_offset == 0
        if native.byte_count:
            memory = (ctypes.c_ubyte * native.byte_count).from_address(native.data)
            # The array keeps the memory, which keeps the hold.
            memory.hold = hold
            self.bytes: npt.NDArray[np.uint8] = np.frombuffer(memory, dtype=np.uint8)
            self.bytes.flags.writeable = False
        else:
            self.bytes = np.empty(0, dtype=np.uint8)

    @property
    def first_row(self) -> int:
        """Rows of the part before the piece; 0 where a piece is less than a row."""
        tensor = self.tensor
        if tensor.is_interleaved:
            rows = math.prod(tensor.part_shape[:-1])
            groups = -(-rows // 16)
            part_bytes = tensor.byte_count // tensor.part_count
            return self.byte_offset * groups // part_bytes * 16 if part_bytes else 0
        return self.byte_offset // tensor.row_byte_count if tensor.row_byte_count else 0

    @property
    def row_count(self) -> int:
        """Whole rows in the piece."""
        tensor = self.tensor
        rows = math.prod(tensor.part_shape[:-1])
        if self._is_whole:
            return rows
        if tensor.is_interleaved:
            groups = -(-rows // 16)
            part_bytes = tensor.byte_count // tensor.part_count
            return min(rows - self.first_row, len(self.bytes) * groups // part_bytes * 16)
        return len(self.bytes) // tensor.row_byte_count if tensor.row_byte_count else 0

    def _shaped(self, values: Array) -> Array:
        """Values in the part's shape, as rows where they are some of them, or flat."""
        columns = self.tensor.column_count
        if self._is_whole:
            return values.reshape(self.tensor.part_shape)
        return values.reshape(-1, columns) if columns and values.size % columns == 0 else values

    @property
    def array(self) -> Array:
        """The elements without a copy; bytes where NumPy has no such type or rows are interleaved."""
        dtype = self.tensor.dtype
        if dtype is not None:
            values = self.bytes.view(dtype) if self.bytes.size else np.empty(0, dtype)
            return self._shaped(values)
        width = self.tensor.row_byte_count
        if self.tensor.is_interleaved or not width or len(self.bytes) % width:
            return self.bytes
        return self.bytes.reshape(-1, width)

    def dequantise(self) -> npt.NDArray[np.float32]:
        """The elements as 32-bit floats, rows one after the other: a copy."""
        tensor = self.tensor
        if tensor.dtype is not None:
            return self.array.astype(np.float32)
        if tensor.type == "BF16" and not tensor.is_interleaved:
            bits = self.bytes.view("<u2").astype(np.uint32) << 16
            return self._shaped(bits.view(np.float32))  # type: ignore[return-value]
        rows = self.row_count
        if not tensor.is_interleaved and rows * tensor.row_byte_count != len(self.bytes):
            raise ValueError(f"this piece of {tensor.name} is less than a row: open the file with a larger piece")
        values = np.empty((rows, tensor.column_count), dtype=np.float32)
        call("dequantise", self._model._open_handle, tensor.index, self.bytes.ctypes.data, len(self.bytes), 0, rows,
             values.ctypes.data, values.size)
        return self._shaped(values)  # type: ignore[return-value]


class _Tensors(Sequence[Tensor]):
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
                           native.layout == 1, native.block_element_count, native.block_byte_count)
            self._known[place] = known
        return known


class Model(Closing):
    """An open file of tensors; see `open`. One thread at a time uses it."""

    def __init__(self, path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
                 options: _native.Options) -> None:
        self._handle: ctypes.c_void_p | None = None
        handle = ctypes.c_void_p()
        call("open", system_path(path), ctypes.byref(options), ctypes.byref(handle))
        self._handle = handle
        self.path = os.fsdecode(path)
        #: What the file holds.
        self.tensors: Sequence[Tensor] = _Tensors(handle)
        self._stream_number = 0

    @property
    def _open_handle(self) -> ctypes.c_void_p:
        # An unknown handle, where the model is closed: the library says so.
        return self._handle or ctypes.c_void_p(2**63)

    def close(self) -> None:
        """Ends the model; arrays stay valid, everything else raises `Closed` from here on."""
        if getattr(self, "_handle", None):
            call("close", self._handle)
            self._handle = None

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and self.tensor(name) is not None
        except NotFound:
            return False

    def tensor(self, name: str) -> Tensor:
        """What the file says of a tensor; raises `NotFound`."""
        index = ctypes.c_uint64()
        call("find", self._open_handle, text(name, "name"), ctypes.byref(index))
        return self.tensors[index.value]

    def __getitem__(self, name: str) -> Array:
        """A whole tensor as an array, without a copy; see `load`."""
        return self.load(name)

    def _parts(self, names: Iterable[str | Tensor | tuple[int, int]]) -> ctypes.Array[_native.Part]:
        """The list of parts that C takes; a pair is (tensor number, part)."""
        parts: list[tuple[int, int]] = []
        for name in names:
            if isinstance(name, tuple):
                parts.append(name)
                continue
            tensor = name if isinstance(name, Tensor) else self.tensor(name)
            parts += [(tensor.index, part) for part in range(tensor.part_count)]
        return (_native.Part * len(parts))(*[_native.Part(tensor, part) for tensor, part in parts])

    def stream(self, names: Iterable[str | Tensor | tuple[int, int]] | None = None) -> Iterator[Piece]:
        """Brings tensors in the order of the names, or all as they lie in the file, with the drive kept busy.

        Tensors that are longer than a piece come in several. Another stream ends this one.
        """
        if names is None:
            call("stream", self._open_handle, None, 0)
        else:
            parts = self._parts(names)
            call("stream", self._open_handle, parts, len(parts))
        self._stream_number += 1
        return self._pieces(self._stream_number)

    def _pieces(self, number: int) -> Iterator[Piece]:
        native = _native.Piece()
        while True:
            if number != self._stream_number:
                raise FlashInferError(13, f"{self.path}: another stream was begun")
            status = call("next", self._open_handle, WAIT_MILLISECONDS, ctypes.byref(native))
            if status == END:
                return
            if status == OK:
                yield Piece(self, self.tensors[native.tensor], native, _native.Hold(native.hold))

    def prefetch(self, names: Iterable[str | Tensor | tuple[int, int]]) -> None:
        """Begins to read tensors that `load_parts` of the same list will be asked for."""
        parts = self._parts(names)
        call("prefetch", self._open_handle, parts, len(parts))

    def load_parts(self, names: Iterable[str | Tensor | tuple[int, int]]) -> list[Piece]:
        """Reads parts whole, each a piece; what lies together is read together."""
        parts = self._parts(names)
        native = (_native.Piece * len(parts))()
        for piece in native:
            piece.size = ctypes.sizeof(_native.Piece)
        while call("load", self._open_handle, parts, len(parts), WAIT_MILLISECONDS, native) != OK:
            pass
        hold = _native.Hold(native[0].hold)
        return [Piece(self, self.tensors[piece.tensor], piece, hold) for piece in native]

    def load(self, name: str | Tensor, dequantise: bool = False) -> Array:
        """A whole tensor as an array: without a copy, or as 32-bit floats where `dequantise` is set."""
        pieces = self.load_parts([name])
        arrays = [piece.dequantise() if dequantise else piece.array for piece in pieces]
        return arrays[0] if len(arrays) == 1 else np.stack(arrays)

    def bundle(self, layer: int, expert: int) -> list[tuple[int, int]]:
        """The parts of one expert, for `stream`, `prefetch` and `load_parts`."""
        parts = (_native.Part * 16)()
        count = ctypes.c_size_t()
        call("bundle", self._open_handle, unsigned(layer, "layer"), unsigned(expert, "expert"), parts, 16,
             ctypes.byref(count))
        return [(part.tensor, part.part) for part in parts[:count.value]]

    @property
    def plan(self) -> Plan:
        """Where the budget goes."""
        native = _native.Plan()
        call("get_plan", self._open_handle, ctypes.byref(native))
        return Plan(native.budget, native.process, native.caller, native.stream, native.held, native.piece,
                    native.read, native.queue_depth)

    @property
    def statistics(self) -> Statistics:
        """What the drive did so far."""
        native = _native.Statistics()
        call("get_statistics", self._open_handle, ctypes.byref(native))
        return Statistics(native.bytes_read, native.requests, native.retries, native.busy_nanoseconds / 1e9,
                          native.wait_nanoseconds / 1e9, native.mean_queue_depth)


def open(path: str | bytes | os.PathLike[str] | os.PathLike[bytes], ram: int | str | None = None, *,
         caller: int | str | None = None, piece: int | str | None = None, read: int | str | None = None,
         queue_depth: int = 0, io: str = "auto") -> Model:
    """Opens a GGUF file, flash image or safetensors file, or a folder of safetensors files.

    ram: bound on the process's peak resident set from now on (default: 80 % of what is free); caller: the part
    of it that the program needs for itself; piece: longest piece of a stream (default 8 MiB); read: bytes of one
    read (1 MiB); queue_depth: reads in flight (32); io: auto, uring, pread or mmap.
    """
    options = _native.Options()
    options.ram = byte_count(ram)
    options.caller_bytes = byte_count(caller)
    options.piece_bytes = byte_count(piece)
    options.read_bytes = byte_count(read)
    options.queue_depth = unsigned(queue_depth, "queue_depth", 32)
    backends = ["auto", "uring", "pread", "mmap"]
    if io not in backends:
        raise ValueError(f"io is {io!r}, not one of {', '.join(backends)}")
    options.backend = backends.index(io)
    return Model(path, options)
