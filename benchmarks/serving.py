#!/usr/bin/env python3
"""What does the server cost: tokens a second through HTTP, and its threads' share of the processors?

usage: serving.py MODEL [--sequences 32] [--tokens 256] [--rounds 5] [--temperature 0] [--record]

Every round decodes --tokens tokens of --sequences sequences with `flashinfer-bench decode`, and has a server answer as many requests with
as many tokens at the same time (`flashinfer-bench serve`), in turn; contexts begin with one token on both sides, so that nearly all
sweeps are of answers. The model should fit in memory: what is read takes its time on both sides. Of the server's threads
those that are busiest, one for each processor, are the engine's; the rest read and write HTTP. The client runs on the same processors, and
its share is told too: without it the server would be faster.
"""
import argparse, contextlib, json, os, resource, subprocess, tempfile, time
import measure
from record import report

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("model"); p.add_argument("--sequences", type=int, default=32); p.add_argument("--tokens", type=int, default=256)
p.add_argument("--rounds", type=int, default=5); p.add_argument("--temperature", type=float, default=0)
p.add_argument("--binaries", default=".build/release"); p.add_argument("--record", action="store_true")
a = p.parse_args()
bench, serve = f"{a.binaries}/flashinfer-bench", f"{a.binaries}/flashinfer-serve"
processors = len(os.sched_getaffinity(0))
ticks = os.sysconf("SC_CLK_TCK")

def thread_seconds(pid):
    """Processor time of each thread."""
    found = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/task/{task}/stat") as file:
            found[task] = sum(map(int, file.read().rsplit(") ", 1)[1].split()[11:13])) / ticks
    return found

def children_seconds():
    """Processor time of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

@contextlib.contextmanager
def server():
    """A server's process and address."""
    with tempfile.TemporaryDirectory() as cache:
        process = subprocess.Popen([serve, a.model, "--port", "0", "--sequences", str(a.sequences), "--context", str(a.tokens + 16),
                                    "--no-kv-store"], stdout=subprocess.PIPE, text=True, env={**os.environ, "XDG_CACHE_HOME": cache})
        try: yield process.pid, process.stdout.readline().split()[-1]
        finally:
            process.terminate()
            process.wait()

def through_http(lines):
    """What the client found, and processor seconds in a second of each of the server's threads, and of the client."""
    with server() as (pid, url):
        def load(): return measure.ours(bench, "serve", url, "--requests-file", lines, "--clients", a.sequences)
        # Weights come in with the first sweeps.
        load()
        before, client, start = thread_seconds(pid), children_seconds(), time.monotonic()
        found = load()
        seconds, client, after = time.monotonic() - start, children_seconds() - client, thread_seconds(pid)
    assert found["answeredRequests"] == a.sequences, found
    return found, {thread: (used - before.get(thread, 0)) / seconds for thread, used in after.items()}, client / seconds

rows = {key: [] for key in ("http", "decode", "ratio", "serving", "client")}
with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
    for number in range(a.sequences):
        print(json.dumps({"prompt": [100 + number], "max_tokens": a.tokens, "temperature": a.temperature}), file=file)
    file.flush()
    for _ in range(a.rounds):
        decode = measure.ours(bench, "decode", a.model, "--sequences", a.sequences, "--depth", 1, "--tokens", a.tokens)
        found, threads, client = through_http(file.name)
        busiest = sorted(threads.values(), reverse=True)
        rows["http"].append(found["answerTokensPerSecond"]); rows["decode"].append(decode["totalTokensPerSecond"])
        rows["ratio"].append(rows["http"][-1] / rows["decode"][-1])
        rows["serving"].append(sum(busiest[processors:]) / processors); rows["client"].append(client / processors)

command = f"benchmarks/serving.py {os.path.basename(a.model)} --sequences {a.sequences} --tokens {a.tokens} --temperature {a.temperature:g}"
note = f"{processors} threads, a client on the same processors"
for figure, key, unit, limit in [
        ("answerTokensPerSecond", "http", "tokens/s", ""), ("bench decode", "decode", "tokens/s", ""),
        ("HTTP / bench decode", "ratio", "of bench decode", (0.9, "at least, or the server's threads at most 0.05")),
        ("server's threads", "serving", "of the processors", (0.05, "at most")), ("client", "client", "of the processors", "")]:
    report(command, figure, rows[key], unit, limit, "resident", a.record, note)
