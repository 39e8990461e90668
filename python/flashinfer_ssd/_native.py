"""libflashinfer through ctypes: structures and functions as flashinfer.h declares them."""
from __future__ import annotations

import ctypes
import operator
import os
import pathlib
from ctypes import (CFUNCTYPE, POINTER, Structure, byref, c_char, c_char_p, c_double, c_float, c_int32, c_int64,
                    c_size_t, c_uint32, c_uint64, c_void_p, sizeof)
from typing import Any, SupportsIndex, Union

from ._errors import END, OK, TIMEOUT, Details, FlashInferError, error

ABI_VERSION = 2

#: How long a call may keep Python from noticing Ctrl-C.
WAIT_MILLISECONDS = 100

#: A number of bytes, or text such as `2GiB`; None: the default.
Amount = Union[SupportsIndex, float, str, None]
#: A file or folder; bytes that are no UTF-8 as they are or as `os.fsdecode` writes them.
Path = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]


class Sized(Structure):
    """A structure that begins with its size."""

    def __init__(self) -> None:
        super().__init__()
        self.size = sizeof(self)


class Error(Sized):
    _fields_ = [("size", c_size_t), ("status", c_int32), ("message", c_char * 1012),
                ("system_error", c_int32), ("reserved", c_uint32), ("offset", c_int64), ("path", c_char * 1024),
                ("remedy", c_char * 256)]


class Options(Sized):
    _fields_ = [("size", c_size_t), ("ram", c_uint64), ("caller_bytes", c_uint64), ("read_bytes", c_uint64),
                ("piece_bytes", c_uint64), ("queue_depth", c_uint32), ("backend", c_uint32),
                ("stream_bytes", c_uint64)]


class Plan(Sized):
    _fields_ = [("size", c_size_t), ("budget", c_uint64), ("process", c_uint64), ("caller", c_uint64),
                ("stream", c_uint64), ("held", c_uint64), ("piece", c_uint64), ("read", c_uint64),
                ("queue_depth", c_uint32), ("reserved", c_uint32)]


class Tensor(Sized):
    _fields_ = [("size", c_size_t), ("name", c_char_p), ("type", c_char_p), ("byte_count", c_uint64),
                ("part_byte_count", c_uint64), ("part_count", c_uint64), ("shape", c_uint64 * 8),
                ("dimension_count", c_uint32), ("layout", c_uint32), ("block_element_count", c_uint32),
                ("block_byte_count", c_uint32), ("is_weight", c_uint32), ("unit_row_count", c_uint32),
                ("unit_byte_count", c_uint64), ("column_count", c_uint64), ("part_row_count", c_uint64),
                ("file", c_uint64), ("file_offset", c_uint64), ("part_stride", c_uint64)]


class Rows(Structure):
    _fields_ = [("tensor", c_uint64), ("part", c_uint64), ("first_row", c_uint64), ("row_count", c_uint64)]


class Part(Structure):
    _fields_ = [("tensor", c_uint64), ("part", c_uint64)]


class Metadata(Sized):
    _fields_ = [("size", c_size_t), ("key", c_char_p), ("type", c_char_p), ("count", c_uint64),
                ("byte_count", c_uint64), ("is_array", c_uint32), ("reserved", c_uint32), ("file", c_uint64)]


class Piece(Sized):
    _fields_ = [("size", c_size_t), ("hold", c_uint64), ("data", c_void_p), ("byte_count", c_uint64),
                ("tensor", c_uint64), ("part", c_uint64), ("byte_offset", c_uint64), ("is_last", c_uint32),
                ("reserved", c_uint32), ("first_row", c_uint64), ("row_count", c_uint64)]


class Statistics(Sized):
    _fields_ = [("size", c_size_t), ("bytes_read", c_uint64), ("requests", c_uint64), ("retries", c_uint64),
                ("busy_nanoseconds", c_uint64), ("wait_nanoseconds", c_uint64), ("mean_queue_depth", c_double)]


class GeneratorOptions(Sized):
    _fields_ = [("size", c_size_t), ("ram", c_uint64), ("context_length", c_uint64), ("thread_count", c_uint32),
                ("reserved", c_uint32)]


class Generation(Sized):
    _fields_ = [("size", c_size_t), ("maximum_tokens", c_uint64), ("temperature", c_float), ("top_p", c_float),
                ("top_k", c_uint32), ("is_seeded", c_uint32), ("seed", c_uint64), ("ticket", c_uint64),
                ("min_p", c_float), ("repetition_penalty", c_float)]


class Result(Sized):
    _fields_ = [("size", c_size_t), ("prompt_tokens", c_uint64), ("answer_tokens", c_uint64), ("seed", c_uint64),
                ("finish_reason", c_int32), ("reserved", c_uint32), ("warning", c_char * 256)]


class EngineOptions(Sized):
    _fields_ = [("size", c_size_t), ("ram", c_uint64), ("context_length", c_uint64), ("thread_count", c_uint32),
                ("sequence_count", c_uint32), ("caller_bytes", c_uint64), ("kv_store", c_char_p),
                ("kv_store_limit", c_uint64), ("kv_type", c_char_p), ("kv_policy", c_char_p)]


class EnginePlan(Sized):
    _fields_ = [("size", c_size_t), ("budget", c_uint64), ("process", c_uint64), ("key_values", c_uint64),
                ("workspace", c_uint64), ("pinned", c_uint64), ("streamed", c_uint64), ("context_length", c_uint64),
                ("sequence_count", c_uint32), ("open_count", c_uint32), ("queued_count", c_uint32),
                ("reserved", c_uint32), ("sweeps", c_uint64), ("rows", c_uint64), ("drawn", c_uint64),
                ("bytes_read", c_uint64), ("lent", c_uint64), ("sweep_nanoseconds", c_uint64),
                ("gap_nanoseconds", c_uint64)]


class SequenceOptions(Sized):
    _fields_ = [("size", c_size_t), ("prompt", c_char_p), ("json", c_char_p), ("tokens", c_void_p),
                ("token_count", c_size_t), ("maximum_tokens", c_uint64), ("temperature", c_float), ("top_p", c_float),
                ("top_k", c_uint32), ("is_seeded", c_uint32), ("seed", c_uint64), ("min_p", c_float),
                ("repetition_penalty", c_float), ("stream", c_uint32), ("ignores_end", c_uint32), ("stops", c_void_p),
                ("stop_count", c_size_t), ("log_probability_count", c_uint32), ("queues", c_uint32),
                ("context_limit", c_uint64), ("ignores_store", c_uint32), ("reserved", c_uint32)]


class Probability(Structure):
    _fields_ = [("token", c_int32), ("reserved", c_uint32), ("log_probability", c_double)]


class Event(Sized):
    _fields_ = [("size", c_size_t), ("kind", c_int32), ("token", c_int32), ("position", c_uint64), ("text", c_void_p),
                ("text_capacity", c_size_t), ("text_byte_count", c_size_t), ("probabilities", c_void_p),
                ("probability_capacity", c_size_t), ("probability_count", c_size_t), ("ahead", c_uint64),
                ("done", c_uint64), ("total", c_uint64), ("finish_reason", c_int32), ("reserved", c_uint32),
                ("stop", c_char * 256), ("prompt_tokens", c_uint64), ("reused_tokens", c_uint64),
                ("answer_tokens", c_uint64), ("seed", c_uint64)]


TextSink = CFUNCTYPE(c_int32, c_void_p, c_void_p, c_size_t)

SIGNATURES: dict[str, list[Any]] = {
    "open": [c_char_p, POINTER(Options), POINTER(c_void_p)],
    "close": [c_void_p],
    "get_plan": [c_void_p, POINTER(Plan)],
    "tensor_count": [c_void_p, POINTER(c_uint64)],
    "tensor_at": [c_void_p, c_uint64, POINTER(Tensor)],
    "find": [c_void_p, c_char_p, POINTER(c_uint64)],
    "file_at": [c_void_p, c_uint64, c_char_p, c_size_t, POINTER(c_size_t)],
    "metadata_count": [c_void_p, POINTER(c_uint64)],
    "metadata_at": [c_void_p, c_uint64, POINTER(Metadata)],
    "metadata_find": [c_void_p, c_char_p, POINTER(c_uint64)],
    "metadata_read": [c_void_p, c_uint64, c_void_p, c_size_t],
    "stream": [c_void_p, POINTER(Part), c_size_t],
    "stream_rows": [c_void_p, POINTER(Rows), c_size_t],
    "next": [c_void_p, c_int64, POINTER(Piece)],
    "release": [c_uint64],
    "prefetch_rows": [c_void_p, POINTER(Rows), c_size_t],
    "cancel_prefetch_rows": [c_void_p, POINTER(Rows), c_size_t],
    "load_rows": [c_void_p, POINTER(Rows), c_size_t, c_int64, POINTER(Piece)],
    "load_byte_count": [c_void_p, POINTER(Rows), c_size_t, POINTER(c_uint64)],
    "load_into": [c_void_p, POINTER(Rows), c_size_t, c_void_p, c_uint64, POINTER(Piece)],
    "allocate": [c_void_p, c_uint64, POINTER(c_void_p), POINTER(c_uint64)],
    "bundle": [c_void_p, c_uint64, c_uint64, POINTER(Part), c_size_t, POINTER(c_size_t)],
    "dequantise": [c_void_p, c_uint64, c_void_p, c_uint64, c_uint64, c_uint64, c_void_p, c_size_t],
    "get_statistics": [c_void_p, POINTER(Statistics)],
    "generator_open": [c_char_p, POINTER(GeneratorOptions), POINTER(c_void_p)],
    "generator_close": [c_void_p],
    "generate": [c_void_p, c_char_p, POINTER(Generation), TextSink, c_void_p, POINTER(Result)],
    "chat_json": [c_void_p, c_char_p, POINTER(Generation), TextSink, c_void_p, POINTER(Result)],
    "engine_open": [c_char_p, POINTER(EngineOptions), POINTER(c_void_p)],
    "engine_close": [c_void_p],
    "engine_get_plan": [c_void_p, POINTER(EnginePlan)],
    "engine_next_warning": [c_void_p, c_char_p, c_size_t],
    "engine_fd": [c_void_p, POINTER(c_int32)],
    "engine_prompt_hashes": [c_void_p, POINTER(SequenceOptions), POINTER(c_uint64), c_size_t, POINTER(c_size_t)],
    "engine_stored_hashes": [c_void_p, POINTER(c_uint64), c_size_t, POINTER(c_size_t)],
    "sequence_open": [c_void_p, POINTER(SequenceOptions), POINTER(c_void_p)],
    "sequence_next": [c_void_p, c_int64, POINTER(Event)],
    "sequence_append": [c_void_p, POINTER(c_int32), c_size_t, c_uint64],
    "sequence_append_text": [c_void_p, c_char_p, c_uint64],
    "sequence_fork": [c_void_p, c_uint64, c_uint32, POINTER(c_void_p)],
    "sequence_truncate": [c_void_p, c_uint64],
    "sequence_cancel": [c_void_p],
    "sequence_close": [c_void_p],
    "cancel": [c_void_p],
    "cancel_ticket": [c_void_p, c_uint64],
}


def _load() -> ctypes.CDLL:
    path = os.environ.get("FLASHINFER_LIBRARY") or str(pathlib.Path(__file__).parent / "libflashinfer.so")
    library = ctypes.CDLL(path)
    library.flashinfer_abi_version.restype = c_uint32
    library.flashinfer_version.restype = c_char_p
    version = library.flashinfer_abi_version()
    if version != ABI_VERSION:
        raise ImportError(f"{path} has version {version} of the interface; this package needs {ABI_VERSION}")
    for name, arguments in SIGNATURES.items():
        function = getattr(library, "flashinfer_" + name)
        function.restype = c_int32
        function.argtypes = [*arguments, POINTER(Error)]
    return library


library = _load()


def call(name: str, *arguments: object) -> int:
    """Calls a function; OK, END or TIMEOUT is returned, everything else raised."""
    failure = Error()
    status: int = getattr(library, "flashinfer_" + name)(*arguments, byref(failure))
    if status in (OK, END, TIMEOUT):
        return status
    details = Details(failure.path, failure.offset, failure.system_error, failure.remedy.decode("utf-8", "replace"))
    raise error(status, failure.message.decode("utf-8", "replace"), details)


def system_path(path: Path) -> bytes:
    """The path's bytes, which need not be UTF-8: as `os.fsencode`, but no NUL can be in it."""
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError("the path holds a NUL byte")
    return encoded


def text(value: str, name: str) -> bytes:
    """Text as C takes it."""
    if not isinstance(value, str):
        raise TypeError(f"the {name} is text, not {value!r}")
    try:
        encoded = value.encode()
    except UnicodeEncodeError as failure:
        raise ValueError(f"the {name} holds a character that is no text: {failure.reason}") from failure
    if b"\0" in encoded:
        raise ValueError(f"the {name} holds a NUL character")
    return encoded


def unsigned(number: SupportsIndex, name: str, bits: int = 64) -> int:
    """A number as an unsigned one of C's, which would lose what does not fit without a word."""
    try:
        whole = operator.index(number)
    except TypeError:
        raise TypeError(f"{name} is a whole number, not {number!r}") from None
    if not 0 <= whole < 1 << bits:
        raise ValueError(f"{name} is {whole}, not 0 to 2^{bits} - 1")
    return whole


def pieces(count: int) -> ctypes.Array[Piece]:
    """An array of pieces to be filled in."""
    array = (Piece * count)()
    for piece in array:
        piece.size = sizeof(Piece)
    return array


class Hold:
    """Memory that the library lends, until the last array over it is gone."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __del__(self) -> None:
        # In a forked child the memory is the parent's to give back.
        library.flashinfer_release(self._number, None)


UNITS = {"tib": 1 << 40, "gib": 1 << 30, "mib": 1 << 20, "kib": 1 << 10, "tb": 10**12, "gb": 10**9,
         "mb": 10**6, "kb": 10**3, "t": 1 << 40, "g": 1 << 30, "m": 1 << 20, "k": 1 << 10, "b": 1}


def byte_count(amount: Amount, name: str) -> int:
    """Bytes of `2GiB`, `500MB`, 4096 or 2e9; 0 for None."""
    if amount is None:
        return 0
    if isinstance(amount, str):
        text = amount.strip().lower()
        unit = next((suffix for suffix in UNITS if text.endswith(suffix)), "")
        try:
            count = float(text.removesuffix(unit)) * UNITS.get(unit, 1)
        except ValueError:
            count = -1.0
    else:
        try:
            # 2e9 and NumPy's numbers are numbers of bytes too.
            count = amount if isinstance(amount, float) else operator.index(amount)
        except TypeError:
            raise TypeError(f"{name} is a number of bytes or text such as '2GiB', not {amount!r}") from None
    if not 0 <= count < 1 << 63:
        raise ValueError(f"{name} is {amount!r}, which is no number of bytes: write '2GiB', '500MB' or 4096")
    return int(count)


__all__ = ["FlashInferError", "Hold", "byte_count", "call", "library", "pieces", "system_path", "text", "unsigned"]
