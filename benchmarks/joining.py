#!/usr/bin/env python3
"""What a long prompt does to those who are being answered, and what they do to it.

usage: joining.py MODEL [--ram 2200MiB] [--sequences 8] [--prompt 4096] [--rounds 3] [--record]

Through the Python package (FLASHINFER_LIBRARY names the library, tools/install makes it). In each round, in one engine:

  alone     a prompt of --prompt random tokens: until its first token
  gap       --sequences answers under way; the longest time from one of their tokens to the next, while the same prompt joins;
            held against twice the median time without it
  first     the prompt's first token beside them ÷ alone; held against 1.5
  cancel    from cancelling the prompt of another sequence to its end in the mailbox, in milliseconds; held against 100
  between   from one sweep's logits to the start of the next while they all answer; held against 10 ms
  after     from that cancellation to the next token of the others, ÷ their median time: rows die at the next layer

--record appends to results.tsv.
"""
import argparse, os, random, statistics, sys, threading, time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../python"))
import flashinfer_ssd
from record import report

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("model"); p.add_argument("--ram"); p.add_argument("--sequences", type=int, default=8)
p.add_argument("--prompt", type=int, default=4096); p.add_argument("--rounds", type=int, default=3)
p.add_argument("--vocabulary", type=int, default=40000, help="random token ids are below this"); p.add_argument("--record", action="store_true")
a = p.parse_args()
random.seed(1)

def tokens(count): return [random.randrange(a.vocabulary) for _ in range(count)]

def first_token(sequence):
    start = time.monotonic()
    next(sequence.tokens())
    return time.monotonic() - start

class Answer(threading.Thread):
    """Pulls answers, one after the other, and notes when their tokens come."""
    def __init__(self, engine):
        super().__init__()
        self.engine, self.segments, self.count, self.stopped = engine, [], 0, False
    def run(self):
        while not self.stopped:
            times = []
            self.segments.append(times)
            self.sequence = self.engine.open(tokens(16), max_tokens=500, temperature=0, ignore_end=True)
            for _ in self.sequence.tokens():
                times.append(time.monotonic())
                self.count += 1
                if self.stopped: break
            self.sequence.close()
    def gaps(self, start, end):
        for times in self.segments:
            inside = [moment for moment in times if start <= moment <= end]
            yield from (later - earlier for earlier, later in zip(inside, inside[1:]))

def wait(answers, count):
    marks = [answer.count for answer in answers]
    while any(answer.count < mark + count for answer, mark in zip(answers, marks)): time.sleep(0.01)

rows = {"alone": [], "gap": [], "first": [], "cancel": [], "between": [], "after": [], "usual": []}
for number in range(a.rounds):
    with flashinfer_ssd.Engine(a.model, a.ram, context=a.prompt + 600, sequences=a.sequences + 1) as engine:
        with engine.open(tokens(32), max_tokens=2, ignore_end=True) as warm: list(warm.tokens())
        prompt = tokens(a.prompt)
        with engine.open(prompt, max_tokens=1, ignore_end=True) as sequence: alone = first_token(sequence)
        answers = [Answer(engine) for _ in range(a.sequences)]
        for answer in answers: answer.start()
        while any(answer.count < 3 for answer in answers): time.sleep(0.01)
        start, before = time.monotonic(), engine.state
        wait(answers, 10)
        state = engine.state
        between = (state.gap_nanoseconds - before.gap_nanoseconds) / max(1, state.sweeps - before.sweeps) / 1e6
        usual = statistics.median(gap for answer in answers for gap in answer.gaps(start, time.monotonic()))
        start = time.monotonic()
        with engine.open(prompt, max_tokens=1, ignore_end=True) as sequence: first = first_token(sequence)
        end = time.monotonic()
        gap = max(gap for answer in answers for gap in answer.gaps(start, end))
        with engine.open(prompt, max_tokens=1, ignore_end=True) as sequence:
            wait(answers, 2)
            start = time.monotonic()
            sequence.cancel()
            for _ in sequence.tokens(): pass
            ended = time.monotonic() - start
            wait(answers, 1)
            after = time.monotonic() - start
        for answer in answers: answer.stopped = True
        for answer in answers: answer.join()
        for key, value in [("alone", alone), ("usual", usual * 1000), ("gap", gap / usual), ("first", first / alone),
                           ("cancel", ended * 1000), ("between", between), ("after", after / usual)]:
            rows[key].append(value)

command = f"benchmarks/joining.py {os.path.basename(a.model)} --sequences {a.sequences} --prompt {a.prompt}" + (f" --ram {a.ram}" if a.ram else "")
def say(figure, unit, limit): report(command, figure, rows[figure], unit, limit, "warm", a.record)
say("alone", "s", "")
say("usual", "ms between tokens", "")
say("gap", "of the usual time", (2, "at most"))
say("first", "of alone", (1.5, "at most"))
say("cancel", "ms", (100, "at most"))
say("between", "ms", (10, "at most"))
say("after", "of the usual time", "")
