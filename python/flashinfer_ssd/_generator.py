"""Text from models that need not fit in memory."""
from __future__ import annotations

import ctypes
import itertools
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import _native
from ._answer import Answer, Run
from ._closing import Closing
from ._errors import Busy, FlashInferError
from ._native import Amount, Path, byte_count, call, system_path, text, unsigned
from ._prompts import Messages, conversation, set_sampling


class Generator(Closing):
    """A model that continues text; weights that fit stay in memory between prompts.

    ram: bound on the process's peak resident set (default: 80 % of what is free); context: positions for prompt
    and answer together (2048); threads: default one per processor.
    """

    def __init__(self, path: Path, ram: Amount = None, *, context: int = 0, threads: int = 0) -> None:
        self._handle: ctypes.c_void_p | None = None
        self._runs: set[Run] = set()
        self._tickets = itertools.count(1)
        options = _native.GeneratorOptions()
        options.ram = byte_count(ram, "ram")
        options.context_length = unsigned(context, "context")
        options.thread_count = unsigned(threads, "threads", 32)
        handle = ctypes.c_void_p()
        call("generator_open", system_path(path), ctypes.byref(options), ctypes.byref(handle))
        self._handle = handle

    def close(self) -> None:
        """Ends the model and what it generates; `generate` raises `Closed` from here on."""
        while getattr(self, "_handle", None):
            # Answers that were left standing, whose threads go on.
            for run in list(self._runs):
                run.end()
            try:
                call("generator_close", self._handle)
                self._handle = None
            except Busy:
                # Another thread has begun an answer meanwhile.
                pass

    def generate(self, prompt: str, *, max_tokens: int = 512, temperature: float = 0.7, top_p: float = 0.95,
                 top_k: int = 40, min_p: float = 0.05, repetition_penalty: float = 1.0,
                 seed: int | None = None) -> Answer:
        """Continues a prompt, in which control tokens may be spelt out; text comes as it is generated.

        temperature: 0 takes the most probable token; top_k: of so many (0: all); top_p: of the most probable ones
        that reach this probability together (1: all); min_p: of those with at least this share of the highest
        probability (0: all); repetition_penalty: what recent tokens are made less likely by (1: nothing). seed: makes
        the random choices the same each time (earlier versions made others); by default one is drawn, see
        `Answer.seed`. Ctrl-C and leaving the loop end the generation at once.
        """
        generation = self._generation(max_tokens, temperature, top_p, top_k, min_p, repetition_penalty, seed)
        return self._answer(Run("generate", (text(prompt, "prompt"),), generation))

    def chat(self, messages: Messages, *, tools: Sequence[Mapping[str, Any]] | None = None,
             documents: Sequence[Mapping[str, Any]] | None = None, template_arguments: Mapping[str, Any] | None = None,
             max_tokens: int = 512, temperature: float = 0.7, top_p: float = 0.95, top_k: int = 40, min_p: float = 0.05,
             repetition_penalty: float = 1.0, seed: int | None = None) -> Answer:
        """Answers a message or a conversation, which the model's chat template frames; otherwise as `generate`.

        messages: a string, or a list of `{"role": …, "content": …}` as chat APIs take it, with content in parts,
        `reasoning_content` and `tool_calls` where there are some. Most templates take one of role `system`, first, then
        `user` and `assistant` by turns. tools, documents: what the template is told of; template_arguments: what else,
        such as `{"enable_thinking": False}`.
        """
        json_text = conversation(messages, tools, documents, template_arguments)
        generation = self._generation(max_tokens, temperature, top_p, top_k, min_p, repetition_penalty, seed)
        return self._answer(Run("chat_json", (json_text,), generation))

    @staticmethod
    def _generation(max_tokens: int, temperature: float, top_p: float, top_k: int, min_p: float,
                    repetition_penalty: float, seed: int | None) -> _native.Generation:
        generation = _native.Generation()
        set_sampling(generation, max_tokens, temperature, top_p, top_k, min_p, repetition_penalty, seed)
        return generation

    def _answer(self, run: Run) -> Answer:
        return Answer(self._texts(run), run)

    def _texts(self, run: Run) -> Iterator[str]:
        try:
            for earlier in list(self._runs):
                if not earlier.is_wanted:
                    # Ctrl-C may have struck while it was being ended.
                    earlier.end()
            self._runs.add(run)
            run.start(self._handle or ctypes.c_void_p(2**63), next(self._tickets))
            while (piece := run.texts.get()) is not None:
                if isinstance(piece, FlashInferError):
                    raise piece
                yield piece
            run.is_read = True
            if run.warning:
                warnings.warn(run.warning, stacklevel=3)
        finally:
            run.end()
            self._runs.discard(run)


def generate(path: Path, prompt: str, ram: Amount = None, **options: Any) -> Iterator[str]:
    """Opens a model, continues one prompt and closes it; see `Generator.generate`."""
    with Generator(path, ram) as generator:
        yield from generator.generate(prompt, **options)


def chat(path: Path, messages: Messages, ram: Amount = None, **options: Any) -> Iterator[str]:
    """Opens a model, answers one conversation and closes it; see `Generator.chat`."""
    with Generator(path, ram) as generator:
        yield from generator.chat(messages, **options)
