"""The interface of OpenAI before the replicas of a Ray Serve application."""
# Annotations are evaluated at once: FastAPI reads them.

import json
import secrets
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any, Literal, Union

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

app = FastAPI(title="flashinfer_ssd", docs_url=None, redoc_url=None)


class Refusal(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.field = status, message, field

    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 429 else "rate_limit_error" if self.status == 429 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.field, "code": None}}


@app.exception_handler(Refusal)
async def tell_refusal(request: Request, refusal: Refusal) -> JSONResponse:
    return JSONResponse(refusal.body(), refusal.status, {"Retry-After": "1"} if refusal.status == 429 else None)


@app.exception_handler(RequestValidationError)
async def tell_invalid(request: Request, failure: RequestValidationError) -> JSONResponse:
    problem = failure.errors()[0]
    field = ".".join(str(part) for part in problem["loc"][1:])
    return await tell_refusal(request, Refusal(400, f"{field}: {problem['msg']}" if field else problem["msg"], field or None))


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False


class Options(BaseModel):
    """What both kinds of requests have; any other field is an error that names it."""

    model_config = ConfigDict(extra="forbid")
    model: str
    max_tokens: int | None = Field(None, ge=0)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    # Of 53 bits, which every reader of JSON keeps.
    seed: int | None = Field(None, ge=0, lt=2**63)
    stop: Union[str, list[str], None] = None
    ignore_eos: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None

    def generation(self) -> dict[str, Any]:
        """What `Engine.open` takes of them; the seed is drawn here, so that whoever begins again gives the same answer."""
        options = self.model_dump(include={"max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty",
                                           "stop"}, exclude_none=True)
        return {**options, "ignore_end": self.ignore_eos,
                "seed": secrets.randbits(53) if self.seed is None else self.seed}


class CompletionRequest(Options):
    prompt: Union[str, list[int]]

    def request(self) -> dict[str, Any]:
        return {"max_tokens": 16, **self.generation(), "prompt": self.prompt}


class ChatRequest(Options):
    messages: list[dict[str, Any]] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=0)
    tools: list[dict[str, Any]] | None = None
    documents: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def request(self) -> dict[str, Any]:
        request = {**self.generation(), "messages": self.messages, "tools": self.tools, "documents": self.documents,
                   "template_arguments": self.chat_template_kwargs}
        if self.max_completion_tokens is not None:
            request["max_tokens"] = self.max_completion_tokens
        return request


class Answer:
    """An answer in the form of its interface: chunks of a stream, or the whole."""

    def __init__(self, model: str, kind: Literal["chat", "text"]) -> None:
        self._model, self._is_chat = model, kind == "chat"
        self._id = ("chatcmpl-" if self._is_chat else "cmpl-") + uuid.uuid4().hex
        self._created = int(time.time())

    def _frame(self, suffix: str, choice: dict[str, Any] | None, **others: Any) -> dict[str, Any]:
        return {"id": self._id, "object": "chat.completion" + suffix if self._is_chat else "text_completion",
                "created": self._created, "model": self._model, "choices": [] if choice is None else [choice], **others}

    @staticmethod
    def _reason(end: dict[str, Any]) -> str:
        return "stop" if end["finish_reason"] == "stop" else "length"

    @staticmethod
    def usage(end: dict[str, Any]) -> dict[str, Any]:
        prompt, answer = end["prompt_token_count"], end["token_count"]
        return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer,
                "prompt_tokens_details": {"cached_tokens": end["reused_token_count"]}}

    def piece(self, text: str, is_first: bool) -> dict[str, Any]:
        if not self._is_chat:
            return self._frame("", {"index": 0, "text": text, "logprobs": None, "finish_reason": None})
        delta = {"role": "assistant", "content": text} if is_first else {"content": text}
        return self._frame(".chunk", {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None})

    def end(self, end: dict[str, Any]) -> dict[str, Any]:
        empty = {"delta": {}} if self._is_chat else {"text": ""}
        return self._frame(".chunk", {"index": 0, **empty, "logprobs": None, "finish_reason": self._reason(end)},
                           seed=end["seed"])

    def total(self, end: dict[str, Any]) -> dict[str, Any]:
        return self._frame(".chunk", None, usage=self.usage(end))

    def whole(self, text: str, end: dict[str, Any]) -> dict[str, Any]:
        content = {"message": {"role": "assistant", "content": text}} if self._is_chat else {"text": text}
        return self._frame("", {"index": 0, **content, "logprobs": None, "finish_reason": self._reason(end)},
                           usage=self.usage(end), seed=end["seed"])


def event(content: dict[str, Any]) -> str:
    """An event of a stream."""
    return f"data: {json.dumps(content, ensure_ascii=False, separators=(',', ':'))}\n\n"


# What this needs is defined before it: it is pickled as it is met.
@serve.ingress(app)
class Ingress:
    """Gives each request to a replica, and to another one where that dies."""

    def __init__(self, replicas: DeploymentHandle, model: str, attempts: int) -> None:
        self._model, self._attempts = model, attempts
        self._hashes, self._answer = replicas.hashes, replicas.options(stream=True).answer
        self._created = int(time.time())

    def _card(self) -> dict[str, Any]:
        return {"id": self._model, "object": "model", "created": self._created, "owned_by": "flashinfer"}

    @app.get("/health")
    async def health(self) -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [self._card()]}

    @app.get("/v1/models/{name:path}")
    async def model(self, name: str) -> dict[str, Any]:
        self._check(name)
        return self._card()

    def _check(self, name: str) -> None:
        if name != self._model:
            raise Refusal(404, f"there is no model '{name}'; there is '{self._model}'", "model")

    @app.post("/v1/chat/completions")
    async def chat(self, body: ChatRequest) -> Any:
        return await self._respond(body, Answer(self._model, "chat"))

    @app.post("/v1/completions")
    async def complete(self, body: CompletionRequest) -> Any:
        return await self._respond(body, Answer(self._model, "text"))

    async def _respond(self, body: ChatRequest | CompletionRequest, answer: Answer) -> Any:
        self._check(body.model)
        parts = self._parts(body.request())
        # What is wrong with the request is known with the first part, before a status is sent.
        first = await anext(parts)
        if body.stream:
            with_usage = body.stream_options is not None and body.stream_options.include_usage
            return StreamingResponse(self._events(first, parts, answer, with_usage), media_type="text/event-stream")
        text, end = "", first
        while isinstance(end, str):
            text += end
            end = await anext(parts)
        return answer.whole(text, end)

    async def _events(self, first: str | dict[str, Any], parts: AsyncIterator[str | dict[str, Any]], answer: Answer,
                      with_usage: bool) -> AsyncIterator[str]:
        try:
            part, is_first = first, True
            while isinstance(part, str):
                yield event(answer.piece(part, is_first))
                part, is_first = await anext(parts), False
            yield event(answer.end(part))
            if with_usage:
                yield event(answer.total(part))
            yield "data: [DONE]\n\n"
        except Refusal as refusal:
            # The status has been sent.
            yield event(refusal.body())

    async def _parts(self, request: dict[str, Any]) -> AsyncIterator[str | dict[str, Any]]:
        """Pieces of text, then how it ended.

        Where the replica dies, another one begins again. Its answer is the same to the last bit, so what was sent already is
        left out of it and the rest goes on.
        """
        sent = 0
        for attempt in range(self._attempts):
            unsent = -sent
            try:
                hashes = await self._hashes.remote(request)
                async for part in self._answer.remote(request, hashes=hashes):
                    if isinstance(part, dict):
                        if "error" in part:
                            raise Refusal(part["status"], part["error"])
                        yield part
                        return
                    unsent += len(part)
                    if unsent > 0:
                        sent += unsent
                        yield part[-unsent:]
                        unsent = 0
                raise Refusal(500, "the answer broke off")
            except RayActorError as failure:
                if attempt + 1 == self._attempts:
                    raise Refusal(503, f"{self._attempts} replicas died: {failure}") from failure
            except BackPressureError as failure:
                raise Refusal(429, "too many requests wait") from failure
