"""Many answers at the same time from one model: an engine and its sequences."""
from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from collections.abc import Sequence as List
from dataclasses import dataclass, fields
from typing import Any, Union

from . import _native
from ._answer import FINISH_REASONS
from ._closing import Closing
from ._errors import END, OK, Closed, FlashInferError
from ._native import WAIT_MILLISECONDS, Amount, Path, byte_count, call, system_path, text, unsigned
from ._prompts import Messages, conversation, set_sampling

#: What a sequence begins with: text, or token ids.
Prompt = Union[str, List[int]]

QUEUED, READING, TOKEN, TEXT, FINISHED = 1, 2, 3, 4, 5
ALL_POSITIONS = 2**64 - 1


@dataclass(frozen=True)
class Token:
    """A token of an answer."""

    id: int
    #: Its place in the context.
    position: int
    #: Text that it settles, which may be that of tokens before it.
    text: str
    #: Most probable tokens there with the natural logarithms of their probabilities, where they were asked for.
    log_probabilities: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class EngineState:
    """Where an engine's memory goes, in bytes, and what it did so far."""

    budget: int
    process: int
    #: Keys and values of all sequences, and what of it weights have at the moment, because no sequence needs it.
    key_values: int
    lent: int
    workspace: int
    #: Weights that stay in memory, and those that each pass reads.
    pinned: int
    streamed: int
    #: Positions of each sequence, sequences that have a place at the same time, that have one, and that wait.
    context_length: int
    sequence_count: int
    open_count: int
    queued_count: int
    #: Passes over the weights, tokens that they read or drew, and tokens drawn.
    sweeps: int
    rows: int
    drawn: int
    #: Bytes of the model.
    bytes_read: int
    #: Time of all passes, and between one's logits and the next that followed at once.
    sweep_nanoseconds: int
    gap_nanoseconds: int


class Engine(Closing):
    """A model that answers any number of sequences, whose tokens share each pass over the weights.

    ram: bound on the process's peak resident set (default: 80 % of what is free); context: positions of each
    sequence (2048); sequences: how many have a place at the same time (8), others wait; threads: default one per
    processor; kv_store: a folder that keeps contexts, where prompts that begin as an earlier one did find its keys and
    values; kv_store_limit: its most bytes (8 GiB); kv_type: how keys and values are stored, "f16", "q8" or "q4"; kv_policy:
    what tokens after a prompt attend over, as `flashinfer-run --kv-policy` takes it ("full"). Any thread may use an engine
    and its sequences. A sequence that was answered keeps its place for the next turn until it is closed: close it, or use it
    in `with`, where others wait.

    >>> import flashinfer_ssd
    >>> with flashinfer_ssd.Engine("model.gguf", ram="300MiB") as engine:
    ...     answers = [engine.open(prompt, max_tokens=8, seed=1) for prompt in ("the ant", "a tree")]
    ...     texts = []
    ...     for answer in answers:
    ...         with answer:
    ...             texts.append("".join(answer))
    >>> [answer.finish_reason for answer in answers]
    ['length', 'length']
    """

    def __init__(self, path: Path, ram: Amount = None, *, context: int = 0, sequences: int = 0,
                 threads: int = 0, kv_store: Path | None = None, kv_store_limit: Amount = None,
                 kv_type: str = "f16", kv_policy: str = "full") -> None:
        self._handle: ctypes.c_void_p | None = None
        self._watchers: dict[asyncio.AbstractEventLoop, _Watcher] = {}
        options = _native.EngineOptions()
        options.ram = byte_count(ram, "ram")
        options.context_length = unsigned(context, "context")
        options.sequence_count = unsigned(sequences, "sequences", 32)
        options.thread_count = unsigned(threads, "threads", 32)
        if kv_store is not None:
            options.kv_store = system_path(kv_store)
        options.kv_store_limit = byte_count(kv_store_limit, "kv_store_limit")
        options.kv_type, options.kv_policy = text(kv_type, "kv_type"), text(kv_policy, "kv_policy")
        handle = ctypes.c_void_p()
        call("engine_open", system_path(path), ctypes.byref(options), ctypes.byref(handle))
        self._handle = handle

    @property
    def _open_handle(self) -> ctypes.c_void_p:
        return self._handle or ctypes.c_void_p(2**63)

    def close(self) -> None:
        """Ends the engine; sequences that are under way end as `cancelled`."""
        handle, self._handle = getattr(self, "_handle", None), None
        if handle:
            call("engine_close", handle)

    @property
    def state(self) -> EngineState:
        """Where memory goes, and what was done up to the end of the last pass."""
        plan = _native.EnginePlan()
        call("engine_get_plan", self._open_handle, ctypes.byref(plan))
        return EngineState(**{field.name: getattr(plan, field.name) for field in fields(EngineState)})

    def warnings(self) -> list[str]:
        """Lines that people may want to read and that were not taken yet, such as that the store cannot be used."""
        lines, memory = [], ctypes.create_string_buffer(1024)
        while call("engine_next_warning", self._open_handle, memory, len(memory)) != END:
            lines.append(memory.value.decode())
        return lines

    def open(self, prompt: Prompt, **options: Any) -> Sequence:
        """Begins to continue a prompt: a text, in which control tokens may be spelt out, or token ids.

        max_tokens (512; 0 reads the prompt only), temperature, top_p, top_k, min_p, repetition_penalty, seed: as
        `Generator.generate`; stream: tells answers with the same seed apart; stop: a text or texts that end the
        answer; ignore_end: whether to continue past end tokens; log_probabilities: most probable tokens to be told
        with each; context_limit: most tokens of all turns together, which saves memory; use_store: False neither takes
        from the engine's kv_store nor leaves anything there; queue: False raises `NotEnoughMemory` where no place is
        free, instead of waiting for one.
        """
        native, keep = _sequence_options(**options)
        keep.append(_begin(native, prompt))
        return self._open(native)

    def chat(self, messages: Messages, *, tools: List[Mapping[str, Any]] | None = None,
             documents: List[Mapping[str, Any]] | None = None, template_arguments: Mapping[str, Any] | None = None,
             **options: Any) -> Sequence:
        """Begins to answer a message or a conversation, as `Generator.chat` takes it; otherwise as `open`."""
        native, _ = _sequence_options(**options)
        native.json = conversation(messages, tools, documents, template_arguments)
        return self._open(native)

    def prompt_hashes(self, prompt: Prompt) -> list[int]:
        """A number for the beginning of a prompt up to each multiple of 128 tokens: the same in every engine of models
        with the same tokens, so that it is told whose store has most of it."""
        native = _native.SequenceOptions()
        keep = _begin(native, prompt)
        hashes = self._hashes("engine_prompt_hashes", ctypes.byref(native))
        del keep
        return hashes

    def chat_hashes(self, messages: Messages, *, tools: List[Mapping[str, Any]] | None = None,
                    documents: List[Mapping[str, Any]] | None = None,
                    template_arguments: Mapping[str, Any] | None = None) -> list[int]:
        """As `prompt_hashes`, of the prompt that `chat` makes."""
        native = _native.SequenceOptions()
        native.json = conversation(messages, tools, documents, template_arguments)
        return self._hashes("engine_prompt_hashes", ctypes.byref(native))

    def stored_hashes(self) -> list[int]:
        """Those numbers of all that kv_store has for this model now, in no order; reads the tokens of all its entries."""
        return self._hashes("engine_stored_hashes")

    def _hashes(self, function: str, *arguments: Any) -> list[int]:
        count, capacity = ctypes.c_size_t(), 1024
        while True:
            hashes = (ctypes.c_uint64 * capacity)()
            call(function, self._open_handle, *arguments, hashes, capacity, ctypes.byref(count))
            if count.value <= capacity:
                return hashes[:count.value]
            # The store may have grown.
            capacity = 2 * count.value

    def _open(self, native: _native.SequenceOptions) -> Sequence:
        handle = ctypes.c_void_p()
        call("sequence_open", self._open_handle, ctypes.byref(native), ctypes.byref(handle))
        return Sequence(self, handle, native.log_probability_count)


def _begin(native: _native.SequenceOptions, prompt: Prompt) -> Any:
    """Has a sequence begin with a prompt; returns memory that the options point to."""
    if isinstance(prompt, str):
        native.prompt = text(prompt, "prompt")
        return None
    ids = _ids(prompt)
    native.tokens, native.token_count = ctypes.cast(ids, ctypes.c_void_p), len(prompt)
    return ids


def _ids(tokens: List[int]) -> ctypes.Array[ctypes.c_int32]:
    """Token ids as C takes them."""
    if isinstance(tokens, (bytes, bytearray, memoryview)):
        raise TypeError("a prompt is text or token ids, not bytes; decode them")
    return (ctypes.c_int32 * len(tokens))(*(unsigned(token, "a token", 31) for token in tokens))


def _sequence_options(*, max_tokens: int = 512, temperature: float = 0.7, top_p: float = 0.95, top_k: int = 40,
                      min_p: float = 0.05, repetition_penalty: float = 1.0, seed: int | None = None,
                      stream: int = 0, stop: str | List[str] = (), ignore_end: bool = False,
                      log_probabilities: int = 0, context_limit: int = 0, use_store: bool = True,
                      queue: bool = True) -> tuple[_native.SequenceOptions, list[Any]]:
    """The options as C takes them, and memory that they point to."""
    native = _native.SequenceOptions()
    set_sampling(native, max_tokens, temperature, top_p, top_k, min_p, repetition_penalty, seed)
    native.stream = unsigned(stream, "stream", 32)
    native.ignores_end, native.queues, native.ignores_store = int(ignore_end), int(queue), int(not use_store)
    native.log_probability_count = unsigned(log_probabilities, "log_probabilities", 32)
    native.context_limit = unsigned(context_limit, "context_limit")
    stops = [stop] if isinstance(stop, str) else list(stop)
    list_of_stops = (ctypes.c_char_p * len(stops))(*[text(one, "stop") for one in stops])
    native.stops, native.stop_count = ctypes.cast(list_of_stops, ctypes.c_void_p), len(stops)
    return native, [list_of_stops]


class Sequence(Iterator[str], Closing):
    """One line of tokens that an engine reads and continues; an iterator of the text of its answer.

    `tokens()` gives tokens instead of text, `async for` waits without a thread. After the answer `append` begins the
    next turn, whose beginning is not read again. Ctrl-C is noticed within 100 ms, and does not end the sequence;
    leaving a `with` block or dropping it does. How the turn ended is known after its last piece: None before.
    """

    def __init__(self, engine: Engine, handle: ctypes.c_void_p, probability_count: int) -> None:
        self._engine = engine
        self._handle: ctypes.c_void_p | None = handle
        self._event = _native.Event()
        self._text = ctypes.create_string_buffer(4096)
        self._event.text, self._event.text_capacity = ctypes.cast(self._text, ctypes.c_void_p), len(self._text)
        capacity = probability_count + 1 if probability_count else 0
        self._probabilities = (_native.Probability * max(1, capacity))()
        self._event.probabilities = ctypes.cast(self._probabilities, ctypes.c_void_p)
        self._event.probability_capacity = capacity
        self._forget()

    def _forget(self) -> None:
        #: Why the turn ended: `stop`, `length`, `context` or `cancelled`.
        self.finish_reason: str | None = None
        #: The stop string that ended it; None if something else did.
        self.stop: str | None = None
        #: Tokens of the context before the answer, those of them that were there before the turn, and of the answer.
        self.prompt_token_count: int | None = None
        self.reused_token_count: int | None = None
        self.token_count: int | None = None
        #: What the random choices were seeded with.
        self.seed: int | None = None

    @property
    def _open_handle(self) -> ctypes.c_void_p:
        return self._handle or ctypes.c_void_p(2**63)

    def _next(self, milliseconds: int) -> Token | None:
        """The next token, or text without one (id -1); None where nothing came in time. StopIteration at the end."""
        event = self._event
        # Each call waits shortly, so that Ctrl-C is looked for in between.
        status = call("sequence_next", self._open_handle, milliseconds, ctypes.byref(event))
        if status == END:
            raise StopIteration
        if status != OK or event.kind in (QUEUED, READING):
            return None
        if event.kind == FINISHED:
            self.finish_reason = FINISH_REASONS.get(event.finish_reason)
            self.stop = event.stop.decode("utf-8", "replace") or None
            self.prompt_token_count, self.reused_token_count = event.prompt_tokens, event.reused_tokens
            self.token_count, self.seed = event.answer_tokens, event.seed
            raise StopIteration
        piece = ctypes.string_at(self._text, event.text_byte_count).decode("utf-8", "replace")
        if event.kind == TEXT:
            return Token(-1, -1, piece)
        listed = tuple((entry.token, entry.log_probability)
                       for entry in self._probabilities[:event.probability_count])
        return Token(event.token, event.position, piece, listed)

    def __next__(self) -> str:
        while True:
            token = self._next(WAIT_MILLISECONDS)
            if token is not None and token.text:
                return token.text

    def tokens(self) -> Iterator[Token]:
        """The tokens of the turn, as they come. Text that is left after the last has `id` -1."""
        while True:
            try:
                token = self._next(WAIT_MILLISECONDS)
            except StopIteration:
                return
            if token is not None:
                yield token

    async def async_tokens(self) -> AsyncIterator[Token]:
        """As `tokens`, for `async for`."""
        with _Watcher.of(self._engine) as watcher:
            while True:
                # Before it is looked for events: what comes later wakes it.
                news = watcher.news
                try:
                    token = self._next(0)
                except StopIteration:
                    return
                if token is None:
                    await watcher.wait(news)
                else:
                    yield token

    async def __aiter__(self) -> AsyncIterator[str]:
        async for token in self.async_tokens():
            if token.text:
                yield token.text

    def append(self, prompt: Prompt, max_tokens: int = 512) -> Sequence:
        """Begins the next turn: adds text or token ids to the context, and continues it; [] goes on with the answer."""
        self._forget()
        limit = unsigned(max_tokens, "max_tokens")
        if isinstance(prompt, str):
            call("sequence_append_text", self._open_handle, text(prompt, "prompt"), limit)
        else:
            ids = _ids(prompt)
            call("sequence_append", self._open_handle, ids, len(prompt), limit)
        return self

    def fork(self, position: int | None = None, *, stream: int) -> Sequence:
        """Another sequence with the same context, or its first `position` tokens; `append` begins its first turn."""
        handle = ctypes.c_void_p()
        place = ALL_POSITIONS if position is None else unsigned(position, "position")
        call("sequence_fork", self._open_handle, place, unsigned(stream, "stream", 32), ctypes.byref(handle))
        return Sequence(self._engine, handle, max(0, self._event.probability_capacity - 1))

    def truncate(self, position: int) -> None:
        """Cuts the context after its first `position` tokens, between turns."""
        call("sequence_truncate", self._open_handle, unsigned(position, "position"))

    def cancel(self) -> None:
        """Ends the sequence; its turn ends as `cancelled`. From any thread, as often as you like."""
        try:
            call("sequence_cancel", self._open_handle)
        except Closed:
            pass

    def close(self) -> None:
        """Cancels the sequence and gives its memory back."""
        handle, self._handle = getattr(self, "_handle", None), None
        if handle:
            call("sequence_close", handle)


class _Watcher:
    """Wakes what waits in an event loop for sequences of an engine, while anything does."""

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        descriptor = ctypes.c_int32()
        call("engine_fd", engine._open_handle, ctypes.byref(descriptor))
        self.news = asyncio.Event()
        self._engine, self._loop, self._descriptor = engine, loop, descriptor.value
        self._count = 0

    @classmethod
    def of(cls, engine: Engine) -> _Watcher:
        loop = asyncio.get_running_loop()
        return engine._watchers.get(loop) or engine._watchers.setdefault(loop, cls(engine, loop))

    def __enter__(self) -> _Watcher:
        self._count += 1
        if self._count == 1:
            self._loop.add_reader(self._descriptor, self._wake)
        return self

    def __exit__(self, *exception: object) -> None:
        self._count -= 1
        if self._count == 0:
            self._loop.remove_reader(self._descriptor)
            self._engine._watchers.pop(self._loop, None)

    def _wake(self) -> None:
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            # Another loop has read it.
            pass
        self.news.set()
        self.news = asyncio.Event()

    async def wait(self, news: asyncio.Event) -> None:
        """Until there may be news; not for long, because another loop may take them first."""
        try:
            await asyncio.wait_for(news.wait(), WAIT_MILLISECONDS / 1000)
        except asyncio.TimeoutError:
            pass
