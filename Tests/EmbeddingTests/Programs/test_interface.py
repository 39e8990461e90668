"""The Python package on small files; see PythonTests.swift for the arguments."""
import faulthandler
import gc
import os
import pathlib
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import unittest
import warnings

import flashinfer
import numpy as np

# The tests' threads block signals, which a program they start inherits.
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGALRM})
signal.signal(signal.SIGINT, signal.default_int_handler)

TWO, FOREIGN, TRUNCATED, MODEL, EXPERTS, LARGE, CHAT = sys.argv[1:]


class Arrays(unittest.TestCase):
    def test_names_shapes_and_types(self):
        with flashinfer.open(TWO, ram="2GiB") as model:
            self.assertEqual([(t.name, t.type, t.shape) for t in model],
                             [("first", "F32", (16,)), ("second", "F32", (3, 4))])
            self.assertEqual(len(model), 2)
            self.assertTrue("first" in model and "third" not in model)
            self.assertEqual(model.tensors[-1].dtype, np.float32)
            self.assertEqual(model.plan.budget, 2 << 30)

    def test_whole_tensors_without_a_copy(self):
        model = flashinfer.open(TWO)
        array = model["second"]
        np.testing.assert_array_equal(array, np.arange(100, 112, dtype="f4").reshape(3, 4))
        self.assertFalse(array.flags.owndata or array.flags.writeable)
        view = array[1:]
        model.close()
        del model, array
        gc.collect()
        np.testing.assert_array_equal(view[0], [104, 105, 106, 107])

    def test_streams_in_any_order(self):
        with flashinfer.open(TWO) as model:
            self.assertEqual([p.tensor.name for p in model.stream()], ["first", "second"])
            pieces = list(model.stream(["second", "first"]))
            self.assertEqual([p.array.shape for p in pieces], [(3, 4), (16,)])
            self.assertEqual(pieces[1].array[15], 15)

    def test_long_tensors_come_in_rows(self):
        with flashinfer.open(LARGE, piece="1MiB") as model:
            rows, sums = {}, {}
            for piece in model.stream():
                self.assertEqual(piece.first_row, rows.get(piece.tensor.name, 0))
                self.assertEqual(piece.array.shape[1], 20000)
                rows[piece.tensor.name] = piece.first_row + len(piece.array)
                sums[piece.tensor.name] = sums.get(piece.tensor.name, 0) + piece.array.sum(dtype="f8")
            self.assertEqual(set(rows.values()), {300})
            for name, total in sums.items():
                self.assertEqual(model[name].sum(dtype="f8"), total)

    def test_dequantised(self):
        with flashinfer.open(MODEL) as model:
            tensor = next(t for t in model if t.type == "Q8_0")
            raw = model.load(tensor)
            blocks = raw.reshape(tensor.shape[0], -1, 34)
            scales = np.ascontiguousarray(blocks[:, :, :2]).view("<f2").astype("f4")
            wanted = (blocks[:, :, 2:].view("i1") * scales).reshape(tensor.shape)
            np.testing.assert_array_equal(model.load(tensor, dequantise=True), wanted)

    def test_experts(self):
        with flashinfer.open(EXPERTS) as model:
            parts = model.bundle(0, 3)
            model.prefetch(parts)
            pieces = model.load_parts(parts)
            self.assertEqual([p.tensor.name for p in pieces],
                             [f"blk.0.ffn_{name}_exps.weight" for name in ("gate", "up", "down")])
            whole = model.load(pieces[0].tensor.name, dequantise=True)
            np.testing.assert_array_equal(pieces[0].dequantise(), whole[3])
            self.assertRaises(flashinfer.NotFound, model.bundle, 0, 99)

    def test_pieces_in_use_are_an_error_and_no_deadlock(self):
        with flashinfer.open(LARGE, ram=(resident() + 40 << 20)) as model:
            with self.assertRaises(flashinfer.NotEnoughMemory):
                kept = list(model.stream())
            kept = None
            self.assertGreater(sum(p.bytes.size for p in model.stream()), 100 << 20)

    def test_statistics(self):
        with flashinfer.open(LARGE) as model:
            total = sum(p.bytes.size for p in model.stream())
            self.assertGreaterEqual(model.statistics.bytes_read, total)


def resident():
    """Resident set in MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() >> 20


class BadInput(unittest.TestCase):
    def test_files(self):
        self.assertRaisesRegex(flashinfer.NoSuchFile, "No such file", flashinfer.open, "/nowhere")
        self.assertRaises(FileNotFoundError, flashinfer.open, "/nowhere")
        self.assertRaisesRegex(flashinfer.BadData, "neither", flashinfer.open, FOREIGN)
        self.assertRaisesRegex(flashinfer.BadData, "ends at byte", flashinfer.open, TRUNCATED)
        self.assertRaises(flashinfer.BadData, flashinfer.Generator, TWO)

    def test_budgets(self):
        self.assertRaisesRegex(flashinfer.NotEnoughMemory, "smallest that works", flashinfer.open, TWO, ram="1MiB")
        self.assertRaisesRegex(flashinfer.NotEnoughMemory, "smallest that works", flashinfer.Generator, MODEL, ram="1MiB")
        self.assertRaises(ValueError, flashinfer.open, TWO, ram="much")
        self.assertRaisesRegex(ValueError, "not one of auto", flashinfer.open, TWO, io="fast")
        self.assertRaises(ValueError, flashinfer.open, TWO, queue_depth=-1)
        self.assertRaises(ValueError, flashinfer.Generator, MODEL, threads=1 << 32)
        with flashinfer.open(LARGE, ram=(resident() + 40 << 20)) as model:
            self.assertRaises(flashinfer.NotEnoughMemory, model.load, "layer.0.weight")

    def test_what_errors_say(self):
        with self.assertRaises(flashinfer.NoSuchFile) as caught:
            flashinfer.open("/nowhere/model")
        failure = caught.exception
        self.assertEqual((failure.status, failure.path, failure.offset, failure.system_error),
                         (4, "/nowhere/model", None, 2))
        self.assertEqual((failure.errno, failure.filename), (2, "/nowhere/model"))
        with self.assertRaises(flashinfer.BadData) as caught:
            flashinfer.open(TRUNCATED)
        self.assertEqual(caught.exception.path, TRUNCATED)
        self.assertIsInstance(caught.exception.offset, int)
        with self.assertRaises(flashinfer.NotEnoughMemory) as caught:
            flashinfer.open(TWO, ram="1MiB")
        self.assertRegex(caught.exception.remedy, "allow at least .*MiB")

    def test_paths_are_bytes(self):
        with tempfile.TemporaryDirectory() as folder:
            # A folder of safetensors files, neither name being UTF-8.
            odd = os.fsencode(folder) + b"/\xff\xfe \xc3("
            os.mkdir(odd)
            file = odd + b"/\x80.safetensors"
            shutil.copy(TWO, file)
            gguf = odd + b"/m\xe9.gguf"
            shutil.copy(MODEL, gguf)
            for path in (file, os.fsdecode(file), pathlib.Path(os.fsdecode(file)), odd, os.fsdecode(odd)):
                with flashinfer.open(path) as model:
                    self.assertEqual(model["second"][0, 0], 100)
                    self.assertEqual(sum(piece.bytes.size for piece in model.stream()), 112)
            with flashinfer.Generator(gguf, context=32) as generator:
                self.assertTrue("".join(generator.generate("a b", max_tokens=3)) is not None)
            os.truncate(file, 100)
            with self.assertRaises(flashinfer.BadData) as caught:
                flashinfer.open(file)
            self.assertEqual(os.fsencode(caught.exception.path), file)
            self.assertIn(r"\xff\xfe \xc3(/\x80.safetensors", str(caught.exception))
            self.assertRaises(ValueError, flashinfer.open, "a\0b")

    def test_closed(self):
        model = flashinfer.open(TWO)
        pieces = model.stream()
        model.close()
        model.close()
        self.assertRaises(flashinfer.Closed, next, pieces)
        self.assertRaises(flashinfer.Closed, model.load, "first")
        self.assertRaises(flashinfer.Closed, lambda: model.statistics)
        generator = flashinfer.Generator(MODEL, context=64)
        generator.close()
        self.assertRaises(flashinfer.Closed, next, generator.generate("a"))

    def test_another_stream_ends_the_first(self):
        with flashinfer.open(TWO) as model:
            first = model.stream()
            next(first)
            model.stream()
            self.assertRaises(flashinfer.FlashInferError, next, first)

    def test_two_threads(self):
        with flashinfer.open(LARGE) as model:
            failures = []

            def use():
                for _ in range(20):
                    try:
                        for piece in model.stream():
                            piece.bytes[0]
                    except flashinfer.FlashInferError as failure:
                        failures.append(failure)

            threads = [threading.Thread(target=use) for _ in range(2)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            self.assertEqual(len(list(model.stream(["layer.1.weight"]))), 3)

    def test_fork(self):
        model = flashinfer.open(TWO)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                model["first"]
            except flashinfer.Forked:
                with flashinfer.open(TWO) as own:
                    status = 0 if own["first"][3] == 3 else 2
            os._exit(status)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(model["first"][3], 3)


class Interrupting(unittest.TestCase):
    def interrupted_after(self, seconds, body):
        # Ends the program where nothing is interrupted.
        faulthandler.dump_traceback_later(30, exit=True)
        with self.assertRaises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, seconds)
            body()
        faulthandler.cancel_dump_traceback_later()
        return time.monotonic() - self.start - seconds

    @staticmethod
    def texts(generator, prompt, count):
        while True:
            for text in generator.generate(prompt, max_tokens=count):
                pass

    def setUp(self):
        self.start = time.monotonic()
        # As Ctrl-C does, but for the timer's signal.
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGALRM, before)

    def test_a_stream(self):
        def forever():
            while True:
                for piece in model.stream():
                    piece.bytes[0]

        with flashinfer.open(LARGE) as model:
            self.assertLess(self.interrupted_after(0.3, forever), 0.5)
            self.assertEqual(model.load("layer.2.weight").shape, (300, 20000))

    def test_text(self):
        with flashinfer.Generator(MODEL, context=500) as generator:
            self.start = time.monotonic()
            self.assertLess(self.interrupted_after(0.3, lambda: self.texts(generator, "a b c", 480)), 0.5)
            self.assertTrue("".join(generator.generate("a b c", max_tokens=20, temperature=0)))

    def test_text_at_any_moment(self):
        # Short answers, so that many interruptions strike where an answer begins or ends.
        with flashinfer.Generator(MODEL, context=64) as generator:
            moments = random.Random(7)
            for _ in range(150):
                self.interrupted_after(moments.uniform(0.001, 0.01), lambda: self.texts(generator, "a", 1))
                self.assertTrue("".join(generator.generate("a b c", max_tokens=2, temperature=0)))


class Text(unittest.TestCase):
    def test_generate(self):
        texts = ["".join(flashinfer.generate(MODEL, "a b c", max_tokens=12, temperature=0)) for _ in range(2)]
        self.assertTrue(texts[0])
        self.assertEqual(texts[0], texts[1])
        with flashinfer.Generator(MODEL, context=64) as generator:
            self.assertEqual("".join(generator.generate("a b c", max_tokens=12, temperature=0)), texts[0])
            next(generator.generate("a b c", max_tokens=40))
            self.assertEqual("".join(generator.generate("a b c", max_tokens=12, temperature=0)), texts[0])
            self.assertRaises(flashinfer.FlashInferError, next, generator.generate("a " * 200))
            self.assertRaisesRegex(flashinfer.Invalid, "no chat template", next, generator.chat("a"))
            self.assertRaisesRegex(ValueError, "character", generator.generate, "a\ud800")
            self.assertRaisesRegex(ValueError, "NUL", generator.generate, "a\0")
            self.assertRaises(ValueError, generator.generate, "a", top_k=-1)

    def test_a_seed_is_drawn_unless_given(self):
        with flashinfer.Generator(MODEL, context=64) as generator:
            answers = [generator.generate("a b c", max_tokens=24, temperature=1.5) for _ in range(6)]
            self.assertEqual(answers[0].seed, None)
            texts = ["".join(answer) for answer in answers]
            self.assertGreater(len(set(texts)), 1)
            self.assertEqual(len({answer.seed for answer in answers}), 6)
            again = generator.generate("a b c", max_tokens=24, temperature=1.5, seed=answers[2].seed)
            self.assertEqual("".join(again), texts[2])
            zeros = ["".join(generator.generate("a b c", max_tokens=24, temperature=1.5, seed=0)) for _ in range(2)]
            self.assertEqual(*zeros)

    def test_answers_say_why_they_end(self):
        with flashinfer.Generator(MODEL, context=64) as generator:
            short = generator.generate("a b c", max_tokens=2, temperature=0)
            self.assertEqual(short.finish_reason, None)
            list(short)
            self.assertEqual((short.finish_reason, short.token_count), ("length", 2))
            long = generator.generate("a b c", max_tokens=4000, temperature=0)
            list(long)
            self.assertEqual(long.finish_reason, "context")
            self.assertEqual(long.token_count + long.prompt_token_count, 64)
            # Whether the model is still at work or has long filled the context: `left` decides.
            for wait in (0, 0.2):
                left = generator.generate("a b c", max_tokens=60)
                next(left)
                time.sleep(wait)
                left.close()
                self.assertEqual(left.finish_reason, "cancelled")

    def test_conversations(self):
        with flashinfer.Generator(CHAT, context=256) as generator:
            user = {"role": "user", "content": "the ant"}
            counts = []
            for messages in ("the ant", [user], [{"role": "system", "content": "an"}, user],
                             [user, {"role": "assistant", "content": "a"}, user]):
                answer = generator.chat(messages, max_tokens=2, temperature=0)
                list(answer)
                counts.append(answer.prompt_token_count)
            self.assertEqual(counts[0], counts[1])
            self.assertTrue(counts[1] < counts[2] and counts[1] < counts[3], counts)
            self.assertRaisesRegex(flashinfer.Invalid, "user", list, generator.chat([user, user]))
            self.assertRaises(flashinfer.Invalid, list, generator.chat([]))
            self.assertRaises(ValueError, generator.chat, [{"role": "tool", "content": "a"}])
            self.assertRaises(ValueError, generator.chat, [{"role": "user"}])

    def test_two_bos_tokens_are_warned_of(self):
        with flashinfer.Generator(CHAT, context=64) as generator:
            with self.assertWarnsRegex(UserWarning, "two BOS"):
                list(generator.generate("<s>the ant", max_tokens=1))
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                list(generator.generate("the ant", max_tokens=1))
                list(generator.chat("<s>the ant", max_tokens=1))

    def test_closing_waits_for_answers_left_standing(self):
        for _ in range(20):
            generator = flashinfer.Generator(MODEL, context=500)
            answer = generator.generate("a b c", max_tokens=480)
            next(answer)
            generator.close()
            self.assertEqual(answer.finish_reason, "cancelled")


unittest.main(argv=sys.argv[:1])
