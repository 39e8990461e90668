"""One answer of a model: its text as it comes, and how it ended."""
from __future__ import annotations

import _thread
import ctypes
import queue
from collections.abc import Iterator

from . import _native
from ._errors import FlashInferError
from ._native import call

#: Names of the reasons in flashinfer.h.
FINISH_REASONS = {1: "stop", 2: "length", 3: "context", 4: "cancelled"}


class Answer(Iterator[str]):
    """The text of an answer, piece by piece; begins when the first is asked for.

    How it went is known when the last has come, or the answer was closed: None before.
    """

    def __init__(self, texts: Iterator[str], run: Run) -> None:
        self._texts = texts
        self._run = run

    def __next__(self) -> str:
        return next(self._texts)

    def close(self) -> None:
        """Ends the generation."""
        self._texts.close()  # type: ignore[attr-defined]

    @property
    def finish_reason(self) -> str | None:
        """`stop`: the model ended it; `length`: it has `max_tokens`; `context`: the context is full; `cancelled`: it
        was closed before its last piece was read, however far the model had come."""
        reason = FINISH_REASONS.get(self._run.result.finish_reason)
        return "cancelled" if reason and not self._run.is_read else reason

    @property
    def seed(self) -> int | None:
        """What the random choices were seeded with: given again, it gives the same answer."""
        return None if self.finish_reason is None else int(self._run.result.seed)

    @property
    def prompt_token_count(self) -> int | None:
        return None if self.finish_reason is None else int(self._run.result.prompt_tokens)

    @property
    def token_count(self) -> int | None:
        """Tokens of the answer, also those that were generated and not read."""
        return None if self.finish_reason is None else int(self._run.result.answer_tokens)


class Run:
    """One generation, in a thread that waits for the model so that the caller's can be interrupted.

    Ctrl-C strikes between any two steps of the caller's thread, which `threading` does not bear: a thread is
    started and waited for by calls that are one step each.
    """

    def __init__(self, function: str, prompt: tuple[object, ...], generation: _native.Generation) -> None:
        self.texts: queue.SimpleQueue[str | FlashInferError | None] = queue.SimpleQueue()
        self.is_wanted = True
        self.is_read = False
        self.result = _native.Result()
        self._function = function
        self._prompt = prompt
        self._generation = generation
        self._is_running = False
        self._ended: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._handle: ctypes.c_void_p | None = None

    @property
    def warning(self) -> str:
        """What is odd about the prompt, once it has been read."""
        warning: bytes = self.result.warning
        return warning.decode("utf-8", "replace")

    def start(self, handle: ctypes.c_void_p, ticket: int) -> None:
        self._handle = handle
        self._generation.ticket = ticket
        _thread.start_new_thread(self._generate, ())

    def _generate(self) -> None:
        # Before it looks whether it is wanted: `end` writes that before it looks whether this runs.
        self._is_running = True
        try:
            if self.is_wanted:
                call(self._function, self._handle, *self._prompt, ctypes.byref(self._generation),
                     _native.TextSink(self._take), None, ctypes.byref(self.result))
            self.texts.put(None)
        except FlashInferError as failure:
            self.texts.put(failure)
        finally:
            self._is_running = False
            self._ended.put(None)

    def _take(self, context: int, address: int, count: int) -> int:
        self.texts.put(ctypes.string_at(address, count).decode())
        return 0 if self.is_wanted else 1

    def end(self) -> None:
        """Ends it where it still runs, and waits until the model is free."""
        self.is_wanted = False
        if self._is_running:
            # By its number: it counts where the library has not begun, and hits no other where it has ended.
            _native.library.flashinfer_cancel_ticket(self._handle, self._generation.ticket, None)
            self._ended.get()
            # For whoever else waits.
            self._ended.put(None)
