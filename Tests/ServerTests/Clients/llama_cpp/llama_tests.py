"""What llama.cpp's server tests need to be run against flashinfer-serve, as a plugin of pytest.

Requests of `/completion` become those of `/v1/completions` and their answers llama.cpp's, since that is how most tests ask. Names of
models are left out: llama.cpp passes over them. Tests of what is not here are skipped, each with its reason.
"""

import json
import os

import openai
import pytest
import utils

PATHS = {"/chat/completions": "/v1/chat/completions", "/models": "/v1/models"}
NATIVE = ("/completion", "/completions")


def read_reasons():
    """Beginnings of tests' names, each with why it is skipped."""
    path = os.path.join(os.path.dirname(__file__), "not_applicable.txt")
    reasons, reason = {}, None
    for line in open(path):
        line = line.rstrip("\n")
        if line.startswith("# "):
            reason = line[2:]
        elif line:
            reasons[line] = reason
    return reasons


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    reasons, used, files = read_reasons(), set(), set()
    for item in items:
        name = item.nodeid.removeprefix("unit/")
        files.add(name.split("::")[0])
        for start in sorted((start for start in reasons if name.startswith(start)), key=len)[-1:]:
            used.add(start)
            item.add_marker(pytest.mark.skip(reason=reasons[start]))
    if unused := {start for start in reasons if start.split("::")[0] in files} - used:
        raise pytest.UsageError(f"there is no such test: {', '.join(sorted(unused))}")


def asked(server, path, data):
    """A request as flashinfer-serve has it."""
    data = dict(data) if isinstance(data, dict) else data
    if not isinstance(data, dict):
        return PATHS.get(path, path), data
    data.pop("model", None)
    # Places are the engine's to give.
    data.pop("id_slot", None)
    # llama.cpp's is an option of the server.
    if server.reasoning and path in ("/apply-template", "/chat/completions"):
        data["chat_template_kwargs"] = {"enable_thinking": server.reasoning != "off"}
    if path in NATIVE or path == "/v1/chat/completions" or path in PATHS:
        data.setdefault("seed", server.seed)
        data.setdefault("temperature", server.temperature)
    if path in NATIVE or path == "/v1/completions" and "n_predict" in data:
        count = data.pop("n_predict", server.n_predict)
        # -1 is all that there is room for.
        data["max_tokens"] = count if count >= 0 else server.n_ctx
        data.pop("cache_prompt", None)
        return "/v1/completions", data
    return PATHS.get(path, path), data


def slots(body):
    """The state of sequences as of `/slots`."""
    return [{"is_processing": number < body["open"]} for number in range(body["total"])]


def native(body):
    """An answer, or a part of one, as of `/completion`."""
    if not isinstance(body, dict) or "choices" not in body:
        return body
    choice = body["choices"][0]
    usage = body.get("usage", {})
    return {
        "content": choice["text"], "stop": choice["finish_reason"] is not None,
        "timings": {"prompt_n": usage.get("prompt_tokens"), "predicted_n": usage.get("completion_tokens")},
    }


request, stream_request = utils.ServerProcess.make_request, utils.ServerProcess.make_stream_request


def make_request(self, method, path, data=None, *rest, **more):
    new_path, data = asked(self, path, data)
    response = request(self, method, new_path, data, *rest, **more)
    if path in NATIVE:
        response.body = native(response.body)
    if path == "/slots":
        response.body = slots(response.body)
    # A browser looks for the header that says who may ask; here 204 is with it and 403 without.
    if method == "OPTIONS" and response.status_code == (204 if "Access-Control-Allow-Origin" in response.headers else 403):
        response.status_code = 200
    return response


def make_stream_request(self, method, path, data=None, *rest, **more):
    new_path, data = asked(self, path, data)
    for part in stream_request(self, method, new_path, data, *rest, **more):
        yield native(part) if path in NATIVE else part


class Client(openai.OpenAI):
    def __init__(self, *, base_url, **more):
        super().__init__(base_url=base_url if base_url.endswith("/v1") else base_url + "/v1", **more)

    def _prepare_options(self, options):
        if isinstance(options.json_data, dict):
            options.json_data.pop("model", None)
        return super()._prepare_options(options)


# The tests take these by name when they are imported, which is later.
utils.ServerProcess.make_request = make_request
utils.ServerProcess.make_stream_request = make_stream_request
utils.ServerPreset.load_all = staticmethod(lambda: None)
openai.OpenAI = Client
