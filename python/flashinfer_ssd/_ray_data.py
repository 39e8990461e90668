"""A stage of Ray Data that answers the prompts of a data set."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow
import ray.data

from ._drives import Drive, Drives, TakenDrive, listed
from ._engine import Engine


class Stage:
    """One engine, which answers batches of rows."""

    def __init__(self, drives: list[Drive], engine: Mapping[str, Any], prompt: str, answer: str, seed: int | str,
                 generation: Mapping[str, Any]) -> None:
        self._taken = TakenDrive(drives)
        self._engine = Engine(self._taken.drive.model, kv_store=self._taken.drive.kv_store, **engine)
        self._prompt, self._answer, self._seed, self._generation = prompt, answer, seed, generation

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        prompts = batch.column(self._prompt).to_pylist()
        seeds = batch.column(self._seed).to_pylist() if isinstance(self._seed, str) else [self._seed] * len(prompts)
        sequences = []
        try:
            # Those without a place wait for one; answers are taken in the order in which places are given.
            for prompt, seed in zip(prompts, seeds):
                begin = self._engine.open if isinstance(prompt, str) else self._engine.chat
                sequences.append(begin(prompt, seed=seed, **self._generation))
            texts, reasons = [], []
            for sequence in sequences:
                texts.append("".join(sequence))
                reasons.append(sequence.finish_reason)
                sequence.close()
        finally:
            for sequence in sequences:
                sequence.close()
        return (batch.append_column(self._answer, pyarrow.array(texts, pyarrow.string()))
                .append_column("finish_reason", pyarrow.array(reasons, pyarrow.string())))


def answers(dataset: ray.data.Dataset, drives: Drives, *, prompt: str = "prompt", answer: str = "answer",
            seed: int | str = 0, replicas: int = 1, cpus: float = 1, batch_size: int = 64,
            engine: Mapping[str, Any] | None = None, **generation: Any) -> ray.data.Dataset:
    """The data set with two more columns: answers, and `finish_reason`.

    prompt: the column with texts that are continued, or with conversations (lists of messages) that are answered; seed: a
    number for all, or the column that has one for each; replicas: engines, each with `cpus` processors and one of the
    drives; batch_size: rows that an engine is given at a time; engine: options of `Engine`; others: those of `Engine.open`,
    such as max_tokens and temperature.

    An answer depends on its prompt and seed alone, not on batches, replicas or failures: Ray gives the batch of an engine that
    died to another.
    """
    return dataset.map_batches(
        Stage, batch_format="pyarrow", batch_size=batch_size, num_cpus=cpus,
        compute=ray.data.ActorPoolStrategy(size=replicas),
        fn_constructor_args=(listed(drives), dict(engine or {}), prompt, answer, seed, generation))
