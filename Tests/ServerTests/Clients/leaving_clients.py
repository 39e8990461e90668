"""Many clients of one server, half of which leave before they are answered: none is lost and none gets another's answer.

usage: leaving_clients.py URL PID SECONDS [CLIENTS]
Each of sixty questions has one answer, whoever asks it and when. At the end the server has the same open as at the start, and
beside it files of its store, of which each context that waits in memory has some (docs/decisions/0055).
"""
import asyncio
import collections
import json
import os
import random
import sys
import time
import urllib.parse
import urllib.request

HOST = urllib.parse.urlparse(sys.argv[1])
PID, SECONDS = sys.argv[2], float(sys.argv[3])
CLIENTS = int(sys.argv[4]) if len(sys.argv) > 4 else 200
answers, counts, faults = {}, {"answered": 0, "left": 0, "told to come again": 0}, []


def question(number):
    """A request of that number, streamed or not."""
    body = json.dumps({
        "prompt": [(number * 37 + position * 11) % 40000 for position in range(20 + number * 3)],
        "max_tokens": 10 + number, "ignore_eos": True, "seed": number,
        "temperature": [0, 0.8, 1.2][number % 3], "stream": random.random() < 0.5}).encode()
    return (b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)) + body


def text(head, body):
    """The text of an answer, whole or streamed."""
    if b"event-stream" not in head:
        return json.loads(body)["choices"][0]["text"]
    lines, rest = b"", body
    while size := int(rest[:rest.index(b"\r\n")], 16):
        start = rest.index(b"\r\n") + 2
        lines, rest = lines + rest[start:start + size], rest[start + size + 2:]
    events = [line[6:] for line in lines.split(b"\n") if line.startswith(b"data: ")]
    if events.pop() != b"[DONE]":
        raise ValueError("a stream without an end")
    return "".join(json.loads(event)["choices"][0]["text"] for event in events)


async def receive(request, patience):
    """What comes; None where patience, in seconds, ends first."""
    reader, writer = await asyncio.open_connection(HOST.hostname, HOST.port)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), patience)
    except asyncio.TimeoutError:
        return None
    finally:
        writer.close()


async def client(leaves, end):
    """Asks again and again."""
    while time.monotonic() < end:
        number = random.randrange(60)
        reply = await receive(question(number), random.random() * 4 if leaves else None)
        if reply is None:
            counts["left"] += 1
            continue
        head, _, body = reply.partition(b"\r\n\r\n")
        status = head.split(b" ")[1] if head else b"nothing"
        if status == b"429":
            counts["told to come again"] += 1
            await asyncio.sleep(0.5)
        elif status != b"200":
            faults.append(f"{status}: {body[:200]}")
        else:
            counts["answered"] += 1
            found = text(head, body)
            if answers.setdefault(number, found) != found:
                faults.append(f"question {number}: {found!r} is not {answers[number]!r}")


def open_files():
    """What the server has open: how many descriptors by what they are, files by their names."""
    names = collections.Counter()
    for descriptor in os.listdir(f"/proc/{PID}/fd"):
        try:
            names[os.readlink(f"/proc/{PID}/fd/{descriptor}")] += 1
        except FileNotFoundError:
            pass
    return names


async def main():
    before, end = open_files(), time.monotonic() + SECONDS
    await asyncio.gather(*[client(number % 2 == 0, end) for number in range(CLIENTS)])
    await asyncio.sleep(2)
    more = open_files() - before
    of_store = {name for name in more if name.removesuffix(" (deleted)").endswith((".kv", ".part"))}
    if others := set(more) - of_store:
        faults.append(f"open at the end and not at the start: {sorted(others)}")
    with urllib.request.urlopen(sys.argv[1] + "/props") as reply:
        properties = json.load(reply)
    # Of each context the file that it is written to, and those that it was taken from, 128 tokens at least from each.
    most = properties["sequences"] * (1 + properties["context_length"] // 128)
    if len(of_store) > most:
        faults.append(f"{len(of_store)} files of the store are open, where {most} may be")
    peak = next(line for line in open(f"/proc/{PID}/status") if line.startswith("VmHWM"))
    print(", ".join(f"{count} {what}" for what, count in counts.items()), f"{len(faults)} faults",
          f"{len(of_store)} files of the store open", f"peak {int(peak.split()[1]) // 1024} MiB", sep=", ")
    if faults or not counts["answered"]:
        sys.exit("\n".join(["error: faults"] + faults[:10]))


asyncio.run(main())
