"""Exceptions for the statuses of flashinfer.h, with the library's messages."""
from __future__ import annotations


class FlashInferError(Exception):
    """Why a call failed; `status` is the number in flashinfer.h."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def __str__(self) -> str:
        return self.message


class NoSuchFile(FlashInferError, FileNotFoundError):
    """There is no file of that name."""


class BadData(FlashInferError, ValueError):
    """The file is foreign, damaged, truncated or not supported."""


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
BY_STATUS = {4: NoSuchFile, 5: BadData, 7: NotEnoughMemory, 8: Cancelled, 9: Closed, 10: Busy, 11: Forked,
             12: NotFound}


def error(status: int, message: str) -> FlashInferError:
    """The exception for a status."""
    return BY_STATUS.get(status, FlashInferError)(status, message)
