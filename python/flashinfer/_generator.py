"""Text from models that need not fit in memory."""
from __future__ import annotations

import _thread
import ctypes
import os
import queue
import time
from collections.abc import Iterator

from . import _native
from ._closing import Closing
from ._errors import Busy, FlashInferError
from ._native import byte_count, call


class Generator(Closing):
    """A model that continues text; weights that fit stay in memory between prompts.

    ram: bound on the process's peak resident set (default: 80 % of what is free); context: positions for prompt
    and answer together (2048); threads: default one per processor.
    """

    def __init__(self, path: str | os.PathLike[str], ram: int | str | None = None, *, context: int = 0,
                 threads: int = 0) -> None:
        self._handle: ctypes.c_void_p | None = None
        self._run: _Run | None = None
        options = _native.GeneratorOptions()
        options.ram = byte_count(ram)
        options.context_length = context
        options.thread_count = threads
        handle = ctypes.c_void_p()
        call("generator_open", os.fsencode(path), ctypes.byref(options), ctypes.byref(handle))
        self._handle = handle

    def close(self) -> None:
        """Ends the model and what it generates; `generate` raises `Closed` from here on."""
        while getattr(self, "_handle", None):
            try:
                call("generator_close", self._handle)
                self._handle = None
            except Busy:
                # An iterator that was left standing, whose thread goes on.
                call("cancel", self._handle)
                time.sleep(0.01)

    def generate(self, prompt: str, *, max_tokens: int = 512, temperature: float = 0.7, top_p: float = 0.95,
                 top_k: int = 40, seed: int = 0, chat: bool = False) -> Iterator[str]:
        """Continues a prompt, or with `chat` answers a message; text comes as it is generated.

        Ctrl-C and leaving the loop end the generation at once.
        """
        generation = _native.Generation()
        generation.maximum_tokens = max_tokens
        generation.temperature = temperature
        generation.top_p = top_p
        generation.top_k = top_k
        generation.seed = seed
        generation.is_chat = chat
        if "\0" in prompt:
            raise ValueError("the prompt holds a NUL character")
        return self._texts(prompt.encode(), generation, self._handle or ctypes.c_void_p(2**63))

    def _texts(self, prompt: bytes, generation: _native.Generation, handle: ctypes.c_void_p) -> Iterator[str]:
        run = _Run(handle)
        try:
            if self._run is not None and not self._run.is_wanted:
                # Ctrl-C may have struck while it was being ended.
                self._run.end()
            self._run = run
            run.start(prompt, generation)
            while (text := run.texts.get()) is not None:
                if isinstance(text, FlashInferError):
                    raise text
                yield text
        finally:
            run.end()


class _Run:
    """One generation, in a thread that waits for the model so that the caller's can be interrupted.

    Ctrl-C strikes between any two steps of the caller's thread, which `threading` does not bear: a thread is
    started and waited for by calls that are one step each.
    """

    def __init__(self, handle: ctypes.c_void_p) -> None:
        self.texts: queue.SimpleQueue[str | FlashInferError | None] = queue.SimpleQueue()
        self.is_wanted = True
        self._is_running = False
        self._ended: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._handle = handle

    def start(self, prompt: bytes, generation: _native.Generation) -> None:
        _thread.start_new_thread(self._generate, (prompt, generation))

    def _generate(self, prompt: bytes, generation: _native.Generation) -> None:
        # Before it looks whether it is wanted: `end` writes that before it looks whether this runs.
        self._is_running = True
        try:
            if self.is_wanted:
                call("generate", self._handle, prompt, ctypes.byref(generation), _native.TextSink(self._take), None)
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
        while self._is_running:
            # Again, where it had not begun yet.
            _native.library.flashinfer_cancel(self._handle, None)
            try:
                self._ended.get(timeout=0.05)
            except queue.Empty:
                pass


def generate(path: str | os.PathLike[str], prompt: str, ram: int | str | None = None, *, max_tokens: int = 512,
             temperature: float = 0.7, seed: int = 0, chat: bool = False) -> Iterator[str]:
    """Opens a model, continues one prompt and closes it; see `Generator`."""
    with Generator(path, ram) as generator:
        yield from generator.generate(prompt, max_tokens=max_tokens, temperature=temperature, seed=seed, chat=chat)
