"""What models and generators have in common: they are closed at the end of a `with` block, or when they go."""
from __future__ import annotations

from types import TracebackType
from typing import TypeVar

from ._errors import FlashInferError

Self = TypeVar("Self", bound="Closing")


class Closing:
    """Something with a `close` that may be called more than once."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        try:
            self.close()
        except FlashInferError:
            pass
