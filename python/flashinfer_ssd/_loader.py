"""Files of tensors: streams of their bytes, and single tensors and rows as NumPy arrays."""
from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Union

import numpy as np

from . import _native
from ._closing import Closing
from ._errors import END, OK, FlashInferError, NotEnoughMemory, NotFound
from ._metadata import Metadata
from ._native import WAIT_MILLISECONDS, Amount, Path, byte_count, call, system_path, text, unsigned
from ._tensors import ALL_ROWS, Array, Floats, Piece, Rows, Tensor, Tensors, view

#: What to stream or load: a tensor or its name, rows of one (`Tensor.rows`), or a pair (tensor number, part).
Part = Union[str, Tensor, Rows, "tuple[int, int]"]


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


class Model(Closing):
    """An open file of tensors; see `open`. One thread at a time uses it."""

    def __init__(self, path: Path, options: _native.Options) -> None:
        self._handle: ctypes.c_void_p | None = None
        handle = ctypes.c_void_p()
        call("open", system_path(path), ctypes.byref(options), ctypes.byref(handle))
        self._handle = handle
        self.path = os.fsdecode(path)
        #: What the file holds.
        self.tensors: Sequence[Tensor] = Tensors(handle)
        self._metadata: Metadata | None = None
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

    def __repr__(self) -> str:
        return f"<Model {self.path!r}: {len(self.tensors)} tensors>" if self._handle else f"<Model {self.path!r}, closed>"

    # What there is

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.tensors)

    def keys(self) -> list[str]:
        """Names of the tensors, as the file lists them."""
        return [tensor.name for tensor in self.tensors]

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

    @property
    def metadata(self) -> Metadata:
        """What the file says under its keys, by key."""
        if self._metadata is None:
            self._metadata = Metadata(self._open_handle)
        return self._metadata

    @property
    def files(self) -> list[str]:
        """The files that the tensors lie in: one, or those of a folder."""
        paths: list[str] = []
        room = ctypes.create_string_buffer(1 << 16)
        length = ctypes.c_size_t()
        while True:
            try:
                call("file_at", self._open_handle, len(paths), room, len(room), ctypes.byref(length))
            except NotFound:
                return paths
            paths.append(os.fsdecode(room.raw[:length.value]))

    # Parts

    def _rows(self, parts: Iterable[Part]) -> ctypes.Array[_native.Rows]:
        """The list of rows that C takes."""
        if isinstance(parts, (str, bytes, Tensor, Rows)):
            raise TypeError(f"a list of tensors is wanted, not one: write [{parts!r}]")
        rows: list[tuple[int, int, int, int]] = []
        for part in parts:
            if isinstance(part, Rows):
                rows.append((part.tensor, part.part, part.first, part.count))
            elif isinstance(part, tuple):
                rows.append((unsigned(part[0], "tensor"), unsigned(part[1], "part"), 0, ALL_ROWS))
            else:
                tensor = part if isinstance(part, Tensor) else self.tensor(part)
                rows += [(tensor.index, matrix, 0, ALL_ROWS) for matrix in range(tensor.part_count)]
        return (_native.Rows * len(rows))(*[_native.Rows(*row) for row in rows])

    def stream(self, parts: Iterable[Part] | None = None) -> Iterator[Piece]:
        """Brings parts in the order of the list, or all tensors as they lie in the file, with the drive kept busy.

        Parts that are longer than a piece come in several. Another stream ends this one.
        """
        if parts is None:
            call("stream", self._open_handle, None, 0)
        else:
            rows = self._rows(parts)
            call("stream_rows", self._open_handle, rows, len(rows))
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

    def prefetch(self, parts: Iterable[Part]) -> None:
        """Begins to read parts that `load_parts` of the same list will be asked for."""
        rows = self._rows(parts)
        call("prefetch_rows", self._open_handle, rows, len(rows))

    def cancel_prefetch(self, parts: Iterable[Part]) -> None:
        """Gives up a prefetch of the same list: the budget has its memory back. Where there is none nothing happens."""
        rows = self._rows(parts)
        call("cancel_prefetch_rows", self._open_handle, rows, len(rows))

    def load_parts(self, parts: Iterable[Part]) -> list[Piece]:
        """Reads parts, each one piece; what lies together is read together, and the drive's queue is kept full."""
        rows = self._rows(parts)
        if not len(rows):
            raise ValueError("the list of tensors to load is empty")
        native = _native.pieces(len(rows))
        try:
            while call("load_rows", self._open_handle, rows, len(rows), WAIT_MILLISECONDS, native) != OK:
                pass
        except BaseException:
            # A load that is left in the middle, as by Ctrl-C, does not keep memory of the budget.
            with contextlib.suppress(FlashInferError):
                call("cancel_prefetch_rows", self._open_handle, rows, len(rows))
            raise
        hold = _native.Hold(native[0].hold)
        return [Piece(self, self.tensors[piece.tensor], piece, hold) for piece in native]

    def load_byte_count(self, parts: Iterable[Part]) -> int:
        """Bytes of memory that `load_into` needs for these parts."""
        rows = self._rows(parts)
        count = ctypes.c_uint64()
        call("load_byte_count", self._open_handle, rows, len(rows), ctypes.byref(count))
        return count.value

    def load_into(self, memory: Any, parts: Iterable[Part]) -> list[Piece]:
        """Reads parts into the caller's memory, which is beside the budget: pinned for a device, or shared.

        memory: writable, begins at a multiple of 4096 (as `mmap.mmap(-1, length)` does), of `load_byte_count(parts)`
        bytes or more. Bytes lie in it as in the file's pages; each piece's array is where its own are.
        """
        rows = self._rows(parts)
        if not len(rows):
            raise ValueError("the list of tensors to load is empty")
        room = np.frombuffer(memory, dtype=np.uint8)
        if not room.flags.writeable:
            raise TypeError("the memory to read into cannot be written to")
        native = _native.pieces(len(rows))
        call("load_into", self._open_handle, rows, len(rows), room.ctypes.data, room.size, native)
        return [Piece(self, self.tensors[piece.tensor], piece, room) for piece in native]

    # Whole tensors and rows as arrays

    def __getitem__(self, name: str) -> Array:
        """A whole tensor as an array, without a copy; see `load`."""
        return self.load(name)

    def load(self, name: str | Tensor, dequantise: bool = False) -> Array:
        """A whole tensor as an array, in memory of the budget: as in the file, or with `dequantise` as 32-bit floats.

        Where it does not fit, `NotEnoughMemory` is raised: `stream` and `load_rows` bring it in pieces.
        """
        tensor = name if isinstance(name, Tensor) else self.tensor(name)
        if dequantise:
            values = self._allocate(tensor.part_count * tensor.row_count * tensor.column_count)
            self._fill(tensor, values)
            return values.reshape(tensor.shape)
        if tensor.part_count == 1:
            return self.load_parts([tensor])[0].array
        part_bytes = tensor.byte_count // tensor.part_count
        whole = self._memory(tensor.byte_count)
        for part in range(tensor.part_count):
            whole[part * part_bytes:(part + 1) * part_bytes] = self.load_parts([(tensor.index, part)])[0].bytes
        if tensor.dtype is not None:
            return whole.view(tensor.dtype).reshape(tensor.shape)
        if tensor.is_interleaved:
            return whole.reshape(tensor.part_count, part_bytes)
        return whole.reshape(tensor.part_count, tensor.row_count, tensor.row_byte_count)

    def load_rows(self, name: str | Tensor, rows: Iterable[int], dequantise: bool = False, part: int = 0) -> Array:
        """Single rows, such as those of tokens in an embedding table: an array with one row for each number.

        Thousands are read at once, each with a small read. They come as elements where NumPy has the type, as 32-bit
        floats with `dequantise`, otherwise as bytes.

        >>> with open("model.gguf") as model:
        ...     table = model.tensors[0]
        ...     rows = model.load_rows(table, [3, 1, 3], dequantise=True)
        >>> rows.shape == (3, table.column_count)
        True
        """
        tensor = name if isinstance(name, Tensor) else self.tensor(name)
        numbers = [unsigned(row, "row") for row in rows]
        if tensor.is_interleaved and not dequantise:
            raise ValueError(f"rows of {tensor.name} are interleaved: ask for dequantise=True")
        if dequantise:
            values = self._allocate(len(numbers) * tensor.column_count).reshape(len(numbers), tensor.column_count)
        else:
            raw = self._memory(len(numbers) * tensor.row_byte_count).reshape(len(numbers), tensor.row_byte_count)
        pieces = self.load_parts([tensor.rows(row, 1, part) for row in numbers]) if numbers else []
        for place, (row, piece) in enumerate(zip(numbers, pieces)):
            if dequantise:
                piece._convert(values[place], row - piece.first_row, 1)
            else:
                raw[place] = piece.bytes
        if dequantise:
            return values
        return raw if tensor.dtype is None else raw.view(tensor.dtype)

    def _memory(self, byte_count: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """Memory of the budget, as long as arrays over it are used."""
        data = ctypes.c_void_p()
        hold = ctypes.c_uint64()
        call("allocate", self._open_handle, byte_count, ctypes.byref(data), ctypes.byref(hold))
        return view(data.value or 0, byte_count, _native.Hold(hold.value))

    def _allocate(self, count: int) -> Floats:
        """Room for floats within the budget."""
        return self._memory(4 * count).view(np.float32)

    def _fill(self, tensor: Tensor, values: Floats) -> None:
        """Reads a tensor in rows, and the next ones meanwhile, into a flat array of floats."""
        chunks: list[Rows] = []
        for part in range(tensor.part_count):
            # About a read's bytes; whole groups of interleaved rows.
            step = max(16, (1 << 20) // max(1, tensor.row_byte_count) // 16 * 16)
            chunks += [tensor.rows(first, min(step, tensor.row_count - first), part)
                       for first in range(0, tensor.row_count, step)]
        place = number = 0
        try:
            for number, chunk in enumerate(chunks):
                try:
                    for following in chunks[number:number + 4]:
                        self.prefetch([following])
                except NotEnoughMemory:
                    pass
                piece, = self.load_parts([chunk])
                end = place + chunk.count * tensor.column_count
                piece._convert(values[place:end], 0, chunk.count)
                place = end
        except BaseException:
            # What was asked for ahead does not keep memory of the budget.
            for chunk in chunks[number:number + 4]:
                with contextlib.suppress(FlashInferError):
                    self.cancel_prefetch([chunk])
            raise

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


def open(path: Path, ram: Amount = None, *, caller: Amount = None, piece: Amount = None, read: Amount = None,
         stream: Amount = None, queue_depth: int = 0, io: str = "auto") -> Model:
    """Opens a GGUF file, flash image or safetensors file, or a folder of safetensors files.

    Any member of a split GGUF model opens all of them.

    ram: bound on the process's peak resident set from now on (default: 80 % of what is free); caller: the part
    of it that the program needs for itself; stream: the part that streams go through (default: at most 64 MiB), the
    rest being for arrays of tensors that are loaded; piece: longest piece of a stream (8 MiB); read: bytes of one
    read (1 MiB); queue_depth: reads in flight (32); io: auto, uring, pread or mmap.

    >>> with open("model.safetensors", ram=2e9, stream="16MiB") as model:
    ...     model.keys(), model["second"].shape, model.plan.stream >> 20
    (['first', 'second'], (3, 4), 16)
    """
    options = _native.Options()
    options.ram = byte_count(ram, "ram")
    options.caller_bytes = byte_count(caller, "caller")
    options.piece_bytes = byte_count(piece, "piece")
    options.read_bytes = byte_count(read, "read")
    options.stream_bytes = byte_count(stream, "stream")
    options.queue_depth = unsigned(queue_depth, "queue_depth", 32)
    backends = ["auto", "uring", "pread", "mmap"]
    if io not in backends:
        raise ValueError(f"io is {io!r}, not one of {', '.join(backends)}")
    options.backend = backends.index(io)
    return Model(path, options)
