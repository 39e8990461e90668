"""Two nodes of a Ray cluster on this machine: a data set is answered over HTTP and by a stage, and an engine is killed.

usage: ray_cluster.py MODEL [PROMPTS]; see tools/test-ray.
"""
import asyncio
import json
import os
import pathlib
import signal
import sys
import tempfile
import time

import aiohttp
import ray
from ray import serve
from ray._private.state import actors
from ray.cluster_utils import Cluster

import flashinfer_ssd
from flashinfer_ssd.ray import Drive, answers, application

MODEL = pathlib.Path(sys.argv[1]).resolve()
COUNT = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
URL = "http://127.0.0.1:8000"
NAME = "tiny"
ENGINE = {"ram": "1200MiB", "context": 512, "sequences": 16, "threads": 1}
THINGS = ["ant", "bridge", "cloud", "drum", "engine", "forest", "glacier", "harbour", "island", "jungle"]


def prompt(number):
    return f"Fact {number} about the {THINGS[number % 10]}:"


def note(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def alone():
    """What one engine answers."""
    with flashinfer_ssd.Engine(MODEL, **{**ENGINE, "threads": 2}) as engine:
        texts = []
        for start in range(0, COUNT, 64):
            sequences = [engine.open(prompt(number), max_tokens=8, seed=number)
                         for number in range(start, min(COUNT, start + 64))]
            for sequence in sequences:
                with sequence:
                    texts.append("".join(sequence))
    return texts


def processes(kind):
    """Numbers of the processes of the living actors whose class's name has `kind` in it."""
    return sorted(actor["Pid"] for actor in actors().values()
                  if kind in actor["ActorClassName"] and actor["State"] == "ALIVE")


def kill_one(kind):
    found = processes(kind)
    assert len(found) == 2, f"{found} of {kind}: {[actor['ActorClassName'] for actor in actors().values()]}"
    os.kill(found[0], signal.SIGKILL)
    note(f"killed process {found[0]} of {found}")
    return found


async def post(session, path, body):
    async with session.post(URL + path, json={"model": NAME, **body}) as response:
        return response.status, await response.text()


async def complete(session, number):
    """The answer to a prompt; every other one as a stream."""
    body = {"prompt": prompt(number), "max_tokens": 8, "seed": number, "stream": number % 2 == 1}
    status, text = await post(session, "/v1/completions", body)
    assert status == 200, (number, status, text)
    if number % 2 == 0:
        return json.loads(text)["choices"][0]["text"]
    events = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert events[-1] == "[DONE]", (number, text)
    return "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1])


async def test_serve(expected):
    found, before = {}, None
    waiting = asyncio.Queue()
    for number in range(COUNT):
        waiting.put_nowait(number)

    async def client(session):
        nonlocal before
        while not waiting.empty():
            number = waiting.get_nowait()
            text = await complete(session, number)
            assert number not in found
            found[number] = text
            if len(found) == COUNT // 3:
                before = kill_one(":Replica")

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1200)) as session:
        await asyncio.gather(*(client(session) for _ in range(24)))
    assert sorted(found) == list(range(COUNT))
    wrong = [number for number in range(COUNT) if found[number] != expected[number]]
    assert not wrong, f"{len(wrong)} answers differ: {[(found[n], expected[n]) for n in wrong[:3]]}"
    deadline = time.monotonic() + 120
    while len(processes(":Replica")) < 2 and time.monotonic() < deadline:
        await asyncio.sleep(1)
    assert len(set(processes(":Replica")) - set(before)) == 1, "the replica that was killed did not come back"
    note(f"serve: {COUNT} answers, each once, as one engine's")


async def test_errors():
    async with aiohttp.ClientSession() as session:
        cases = [("/v1/completions", {"prompt": "a", "best_of": 2}, 400, "best_of"),
                 ("/v1/completions", {"prompt": "a " * 600}, 400, "512"),
                 ("/v1/completions", {"prompt": "a", "temperature": -1}, 400, "temperature"),
                 ("/v1/chat/completions", {"messages": []}, 400, "messages"),
                 ("/v1/chat/completions", {"model": "other", "messages": [{"role": "user", "content": "a"}]}, 404, "other")]
        for path, body, status, word in cases:
            got, text = await post(session, path, body)
            assert got == status and word in json.loads(text)["error"]["message"], (body, got, text)
        got, text = await post(session, "/v1/chat/completions", {
            "messages": [{"role": "user", "content": "Hello"}], "max_completion_tokens": 4, "stream": True,
            "stream_options": {"include_usage": True}})
        events = [json.loads(line[6:]) for line in text.splitlines() if line and "[DONE]" not in line]
        assert events[0]["choices"][0]["delta"]["role"] == "assistant", events[0]
        assert events[-1]["usage"]["completion_tokens"] <= 4 and not events[-1]["choices"], events[-1]
        async with session.get(URL + "/v1/models") as response:
            assert (await response.json())["data"][0]["id"] == NAME
    note("serve: errors and chat are as they should be")


async def cached(session, number):
    """How much of a long prompt was known."""
    text = f"Book {number}. " + " ".join(f"The {THINGS[(number * index) % 10]} {index}." for index in range(60))
    status, answer = await post(session, "/v1/completions", {"prompt": text, "max_tokens": 2, "seed": 1})
    assert status == 200, answer
    usage = json.loads(answer)["usage"]
    assert usage["prompt_tokens"] >= 260, usage
    return usage["prompt_tokens_details"]["cached_tokens"]


async def test_routing(drives):
    """Long prompts go to where they were read, as the replicas' stores tell when nobody remembers."""
    async with aiohttp.ClientSession() as session:
        assert all([await cached(session, number) < 128 for number in range(8)])
        again = [await cached(session, number) for number in range(8)]
        assert min(again) >= 256, again
    serve.delete("default")
    run(drives)
    shares = [len(list(pathlib.Path(drive.kv_store).glob("*.kv"))) for drive in drives]
    assert min(shares) > 0, shares
    # Replicas tell what they have in this time.
    await asyncio.sleep(8)
    async with aiohttp.ClientSession() as session:
        again = [await cached(session, number) for number in range(8)]
    assert min(again) >= 256, again
    note(f"serve: prompts find their stores, of {shares} entries")


def test_data(expected, drives):
    rows = ray.data.from_items([{"id": number, "prompt": prompt(number), "seed": number} for number in range(COUNT)],
                               override_num_blocks=max(4, COUNT // 25))
    stage = answers(rows, drives, seed="seed", replicas=2, cpus=2, batch_size=25, engine=ENGINE, max_tokens=8)
    found, is_killed = {}, False
    for row in stage.iter_rows():
        assert row["id"] not in found
        found[row["id"]] = row["answer"]
        if not is_killed and len(found) >= COUNT // 10:
            is_killed = True
            kill_one("MapWorker")
    assert sorted(found) == list(range(COUNT)) and is_killed
    wrong = [number for number in range(COUNT) if found[number] != expected[number]]
    assert not wrong, f"{len(wrong)} answers differ"
    note(f"data: {COUNT} answers, each once, as one engine's")


def run(drives):
    serve.run(application(drives, replicas=2, cpus=2, name=NAME, engine=ENGINE, stats_period=2))


def main():
    expected = alone()
    note(f"one engine alone has answered {COUNT} prompts")
    with tempfile.TemporaryDirectory(prefix="flashinfer-ray") as folder:
        drives = []
        for name in ("a", "b"):
            place = pathlib.Path(folder) / name
            place.mkdir()
            (place / "model.gguf").symlink_to(MODEL)
            drives.append(Drive(str(place / "model.gguf"), str(place / "kv")))
        options = {"num_cpus": 2, "object_store_memory": 100 << 20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=options)
        try:
            cluster.add_node(num_cpus=2, object_store_memory=100 << 20)
            ray.init(address=cluster.address, log_to_driver=False)
            serve.start(http_options={"host": "127.0.0.1", "port": 8000})
            run(drives)
            note("the application runs")
            asyncio.run(test_errors())
            asyncio.run(test_routing(drives))
            asyncio.run(test_serve(expected))
            serve.shutdown()
            test_data(expected, drives)
        finally:
            ray.shutdown()
            cluster.shutdown()


main()
