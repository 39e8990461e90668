"""Exceptions for the statuses of flashinfer.h, with the library's messages."""
from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Details:
    """Where an error is and what to do about it, as far as the library knows."""

    path: bytes = b""
    offset: int = -1
    system_error: int = 0
    remedy: str = ""


class FlashInferError(Exception):
    """Why a call failed.

    status: the number in flashinfer.h; path, offset: the file at fault (bytes that are no UTF-8 as `os.fsdecode`
    writes them) and the byte in it; system_error: the system's error number; remedy: what to do about it. Each is
    None where there is none.
    """

    def __init__(self, status: int, message: str, details: Details = Details()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.path = os.fsdecode(details.path) if details.path else None
        self.offset = details.offset if details.offset >= 0 else None
        self.system_error = details.system_error or None
        self.remedy = details.remedy or None
        if isinstance(self, OSError):
            # As Python's own have them.
            for name, value in (("errno", self.system_error), ("strerror", message), ("filename", self.path)):
                setattr(self, name, value)

    def __str__(self) -> str:
        return self.message


class Invalid(FlashInferError, ValueError):
    """An argument is out of range, or the model has no place for it."""


class NoSuchFile(FlashInferError, FileNotFoundError):
    """There is no file of that name."""


class BadData(FlashInferError, ValueError):
    """The file is foreign, damaged, truncated or not supported."""


class NotReadable(FlashInferError, OSError):
    """The drive or the system failed."""


class NotEnoughMemory(FlashInferError, MemoryError):
    """The budget, or what is left of it, is too small; the message says what would do."""


class Cancelled(FlashInferError):
    """Another thread cancelled the call."""


class Closed(FlashInferError):
    """The model was closed."""


class Busy(FlashInferError):
    """Another thread is using the model."""


class Forked(FlashInferError):
    """The model was opened before this process was forked."""


class NotFound(FlashInferError, KeyError):
    """The file has no such tensor, part or expert."""


OK, END, TIMEOUT = 0, 1, 2
BY_STATUS = {3: Invalid, 4: NoSuchFile, 5: BadData, 6: NotReadable, 7: NotEnoughMemory, 8: Cancelled, 9: Closed,
             10: Busy, 11: Forked, 12: NotFound}


def error(status: int, message: str, details: Details = Details()) -> FlashInferError:
    """The exception for a status."""
    return BY_STATUS.get(status, FlashInferError)(status, message, details)
