"""What generators and engines are asked: conversations, and how tokens are drawn."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Union

from . import _native
from ._native import text, unsigned

#: A message to be answered, or a conversation whose last message is: `{"role": "user", "content": "Hi"}`, …
Messages = Union[str, Sequence[Mapping[str, Any]]]


def conversation(messages: Messages, tools: Sequence[Mapping[str, Any]] | None,
                 documents: Sequence[Mapping[str, Any]] | None, arguments: Mapping[str, Any] | None) -> bytes:
    """A conversation as C takes it."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    members: dict[str, Any] = {"messages": [dict(message) for message in messages]}
    for name, value in (("tools", tools), ("documents", documents), ("chat_template_kwargs", arguments)):
        if value is not None:
            members[name] = value
    return text(json.dumps(members, ensure_ascii=False), "messages")


def set_sampling(options: _native.Generation | _native.SequenceOptions, max_tokens: int, temperature: float,
                 top_p: float, top_k: int, min_p: float, repetition_penalty: float, seed: int | None) -> None:
    """Fills in how many tokens are drawn, and how."""
    options.maximum_tokens = unsigned(max_tokens, "max_tokens")
    options.temperature = temperature
    options.top_p = top_p
    options.top_k = unsigned(top_k, "top_k", 32)
    options.min_p = min_p
    options.repetition_penalty = repetition_penalty
    if seed is not None:
        options.is_seeded = 1
        options.seed = unsigned(seed, "seed")
