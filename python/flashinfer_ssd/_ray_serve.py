"""A Ray Serve application: replicas with an engine each, and the interface of OpenAI before them."""
from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

from ray import serve
from ray.serve.config import RequestRouterConfig

from ._drives import Drive, Drives, TakenDrive, listed
from ._engine import Engine, Sequence
from ._errors import FlashInferError, Invalid
from ._ray_ingress import Ingress
from ._ray_router import PrefixRouter


class Replica:
    """One engine on one drive.

    A request is what `Engine.open` or `Engine.chat` takes: its `prompt` or `messages`, and their options.
    """

    def __init__(self, drives: list[Drive], engine: Mapping[str, Any]) -> None:
        self._taken = TakenDrive(drives)
        self._engine = Engine(self._taken.drive.model, kv_store=self._taken.drive.kv_store, **engine)
        self._failure: FlashInferError | None = None
        self._stored: tuple[int, list[int]] = (0, [])

    def check_health(self) -> None:
        """Ray replaces a replica whose drive or model has failed."""
        if self._failure:
            raise self._failure

    async def record_routing_stats(self) -> dict[str, list[int]]:
        """What of prompts it has, for `PrefixRouter`."""
        return {"hashes": await asyncio.to_thread(self._stored_hashes)}

    def _stored_hashes(self) -> list[int]:
        folder = self._taken.drive.kv_store
        if folder is None:
            return []
        changed = os.stat(folder).st_mtime_ns
        if changed != self._stored[0]:
            self._stored = (changed, self._engine.stored_hashes())
        return self._stored[1]

    async def hashes(self, request: dict[str, Any]) -> list[int]:
        """Numbers for the beginnings of a request's prompt."""
        prompt = {key: value for key, value in request.items()
                  if key in ("messages", "tools", "documents", "template_arguments")}
        try:
            if prompt:
                return await asyncio.to_thread(self._engine.chat_hashes, **prompt)
            return await asyncio.to_thread(self._engine.prompt_hashes, request["prompt"])
        except (Invalid, TypeError, ValueError):
            # It is said when the request is answered.
            return []

    async def answer(self, request: dict[str, Any], hashes: list[int]) -> AsyncIterator[str | dict[str, Any]]:
        """Pieces of text, then how it ended, or `error` with the status for HTTP."""
        try:
            with self._open(request) as sequence:
                async for piece in sequence:
                    yield piece
                yield {name: getattr(sequence, name) for name in
                       ("finish_reason", "prompt_token_count", "reused_token_count", "token_count", "seed")}
        except (Invalid, TypeError, ValueError) as failure:
            yield {"error": str(failure), "status": 400}
        except FlashInferError as failure:
            self._failure = failure
            raise

    def _open(self, request: dict[str, Any]) -> Sequence:
        return self._engine.chat(**request) if "messages" in request else self._engine.open(**request)


def model_name(path: str) -> str:
    """What a model is called where nobody says it: its file's or folder's name, without an ending of models."""
    name = os.path.basename(path.rstrip("/"))
    return next((name.removesuffix(ending) for ending in (".gguf", ".bin", ".safetensors") if name.endswith(ending)), name)


def application(drives: Drives, *, replicas: int = 1, name: str | None = None, cpus: float = 1,
                engine: Mapping[str, Any] | None = None, attempts: int = 3, stats_period: float = 5,
                queue: int = 200) -> Any:
    """An application for `serve.run`: `/v1/chat/completions`, `/v1/completions`, `/v1/models`, `/health`.

    replicas: engines, each with `cpus` processors and one of the drives; name: of the model, by default its file's without the ending;
    engine: options of `Engine`; attempts: how often a request is begun where replicas die under it; stats_period: seconds
    between two reports of what stores have; queue: most requests that wait, others are answered 429.
    """
    places = listed(drives)
    options = dict(engine or {})
    sequences = options.get("sequences") or 8
    replica = serve.deployment(
        Replica, name="Replica", num_replicas=replicas, ray_actor_options={"num_cpus": cpus},
        # As many as are answered, and some whose prompts are looked at.
        max_ongoing_requests=2 * sequences, max_queued_requests=queue,
        request_router_config=RequestRouterConfig(
            request_router_class=PrefixRouter, request_routing_stats_period_s=stats_period,
            request_routing_stats_timeout_s=max(30, stats_period)))
    ingress = serve.deployment(Ingress, name="Ingress", ray_actor_options={"num_cpus": 0},
                               max_ongoing_requests=queue + 2 * sequences * replicas)
    return ingress.bind(replica.bind(places, options), name or model_name(places[0].model), attempts)
