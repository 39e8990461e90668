"""The Python package on small files; see PythonTests.swift for the arguments."""
import asyncio
import faulthandler
import gc
import mmap
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

import flashinfer_ssd
import numpy as np

# The tests' threads block signals, which a program they start inherits.
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGALRM})
signal.signal(signal.SIGINT, signal.default_int_handler)

TWO, FOREIGN, TRUNCATED, MODEL, EXPERTS, LARGE, CHAT = sys.argv[1:]


class Arrays(unittest.TestCase):
    def test_names_shapes_and_types(self):
        with flashinfer_ssd.open(TWO, ram="2GiB") as model:
            self.assertEqual([(t.name, t.type, t.shape) for t in model],
                             [("first", "F32", (16,)), ("second", "F32", (3, 4))])
            self.assertEqual(len(model), 2)
            self.assertTrue("first" in model and "third" not in model)
            self.assertEqual(model.tensors[-1].dtype, np.float32)
            self.assertEqual(model.plan.budget, 2 << 30)

    def test_whole_tensors_without_a_copy(self):
        model = flashinfer_ssd.open(TWO)
        array = model["second"]
        np.testing.assert_array_equal(array, np.arange(100, 112, dtype="f4").reshape(3, 4))
        self.assertFalse(array.flags.owndata or array.flags.writeable)
        view = array[1:]
        model.close()
        del model, array
        gc.collect()
        np.testing.assert_array_equal(view[0], [104, 105, 106, 107])

    def test_streams_in_any_order(self):
        with flashinfer_ssd.open(TWO) as model:
            self.assertEqual([p.tensor.name for p in model.stream()], ["first", "second"])
            pieces = list(model.stream(["second", "first"]))
            self.assertEqual([p.array.shape for p in pieces], [(3, 4), (16,)])
            self.assertEqual(pieces[1].array[15], 15)

    def test_long_tensors_come_in_rows(self):
        with flashinfer_ssd.open(LARGE, piece="1MiB") as model:
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
        with flashinfer_ssd.open(MODEL) as model:
            tensor = next(t for t in model if t.type == "Q8_0")
            raw = model.load(tensor)
            blocks = raw.reshape(tensor.shape[0], -1, 34)
            scales = np.ascontiguousarray(blocks[:, :, :2]).view("<f2").astype("f4")
            wanted = (blocks[:, :, 2:].view("i1") * scales).reshape(tensor.shape)
            np.testing.assert_array_equal(model.load(tensor, dequantise=True), wanted)

    def test_rows(self):
        for path in (MODEL, EXPERTS, LARGE):
            with flashinfer_ssd.open(path) as model:
                tensor = max(model, key=lambda tensor: tensor.row_count)
                whole = model.load(tensor, dequantise=True).reshape(-1, tensor.column_count)
                rows = [random.Random(3).randrange(tensor.row_count) for _ in range(50)]
                np.testing.assert_array_equal(model.load_rows(tensor, rows, dequantise=True), whole[rows])
                raw = model.load(tensor).reshape(-1, model.load_rows(tensor, [0]).shape[1])
                np.testing.assert_array_equal(model.load_rows(tensor, rows), raw[rows])
                pieces = list(model.stream([tensor.rows(1, 2), tensor.rows(0)]))
                self.assertEqual([(p.first_row, p.row_count) for p in pieces], [(1, 2), (0, 1)])
                np.testing.assert_array_equal(pieces[0].dequantise(), whole[1:3])
                self.assertEqual(model.load_rows(tensor, []).shape[0], 0)
                self.assertRaisesRegex(flashinfer_ssd.NotFound, "no rows", model.load_rows, tensor, [tensor.row_count])
                self.assertRaises(TypeError, model.load_rows, tensor, ["1"])

    def test_one_row_is_a_small_read(self):
        with flashinfer_ssd.open(LARGE) as model:
            model.load_rows("layer.3.weight", [7])
            self.assertLessEqual(model.statistics.bytes_read, 80000 + 8192)

    def test_memory_of_the_program(self):
        with flashinfer_ssd.open(MODEL) as model:
            parts = [model.tensors[0].rows(1, 2), model.tensors[1]]
            memory = mmap.mmap(-1, model.load_byte_count(parts))
            pieces = model.load_into(memory, parts)
            for piece, loaded in zip(pieces, model.load_parts(parts)):
                np.testing.assert_array_equal(piece.array, loaded.array)
            address = np.frombuffer(memory, dtype=np.uint8).ctypes.data
            self.assertTrue(address <= pieces[0].bytes.ctypes.data < address + len(memory))
            self.assertRaisesRegex(flashinfer_ssd.Invalid, "needed", model.load_into, bytearray(10), parts)
            self.assertRaises(TypeError, model.load_into, bytes(1 << 16), parts)

    def test_places_in_files(self):
        with flashinfer_ssd.open(EXPERTS) as model:
            self.assertEqual(model.files, [EXPERTS])
            with open(EXPERTS, "rb") as file:
                for tensor in model:
                    for part in range(tensor.part_count):
                        file.seek(tensor.file_offset + part * tensor.part_stride)
                        found = file.read(tensor.byte_count // tensor.part_count)
                        self.assertEqual(found, model.load_parts([(tensor.index, part)])[0].bytes.tobytes())

    def test_metadata(self):
        with flashinfer_ssd.open(MODEL) as model:
            metadata = model.metadata
            self.assertEqual(metadata["general.architecture"], "llama")
            self.assertEqual(metadata.type("general.architecture"), "string")
            self.assertEqual(metadata.type("tokenizer.ggml.tokens"), "array of string")
            self.assertTrue(all(isinstance(token, str) for token in metadata["tokenizer.ggml.tokens"]))
            self.assertIsInstance(metadata["llama.block_count"], int)
            self.assertIsInstance(metadata["llama.attention.layer_norm_rms_epsilon"], float)
            self.assertEqual(len(dict(metadata)), len(metadata))
            self.assertRaisesRegex(flashinfer_ssd.NotFound, "no metadata key 'x'", metadata.__getitem__, "x")
            self.assertTrue("x" not in metadata and metadata.get("x") is None)
        with flashinfer_ssd.open(TWO) as model:
            self.assertEqual(dict(model.metadata), {})

    def test_the_budget_is_divided_as_asked(self):
        with flashinfer_ssd.open(LARGE, ram="2GiB", stream="16MiB") as model:
            self.assertEqual(model.plan.stream, 16 << 20)
        self.assertRaises(flashinfer_ssd.NotEnoughMemory, flashinfer_ssd.open, LARGE, ram="2GiB", stream="2GiB")

    def test_floats_are_in_the_budget(self):
        with flashinfer_ssd.open(LARGE, ram=(resident() + 70 << 20), stream="16MiB", piece="1MiB") as model:
            floats = model.load("layer.0.weight", dequantise=True)
            kept = [floats]
            with self.assertRaises(flashinfer_ssd.NotEnoughMemory):
                for _ in range(4):
                    kept.append(model.load("layer.0.weight", dequantise=True))
            self.assertFalse(floats.flags.owndata)

    def test_experts(self):
        with flashinfer_ssd.open(EXPERTS) as model:
            parts = model.bundle(0, 3)
            model.prefetch(parts)
            pieces = model.load_parts(parts)
            self.assertEqual([p.tensor.name for p in pieces],
                             [f"blk.0.ffn_{name}_exps.weight" for name in ("gate", "up", "down")])
            whole = model.load(pieces[0].tensor.name, dequantise=True)
            np.testing.assert_array_equal(pieces[0].dequantise(), whole[3])
            self.assertRaises(flashinfer_ssd.NotFound, model.bundle, 0, 99)

    def test_pieces_in_use_are_an_error_and_no_deadlock(self):
        with flashinfer_ssd.open(LARGE, ram=(resident() + 40 << 20)) as model:
            with self.assertRaises(flashinfer_ssd.NotEnoughMemory):
                kept = list(model.stream())
            kept = None
            self.assertGreater(sum(p.bytes.size for p in model.stream()), 100 << 20)

    def test_statistics(self):
        with flashinfer_ssd.open(LARGE) as model:
            total = sum(p.bytes.size for p in model.stream())
            self.assertGreaterEqual(model.statistics.bytes_read, total)


def resident():
    """Resident set in MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() >> 20


class Names(unittest.TestCase):
    def test_the_version_is_the_librarys(self):
        from importlib.metadata import version
        self.assertEqual(flashinfer_ssd.__version__, version("flashinfer-ssd"))

    def test_what_is_public_is_named_as_users_find_it(self):
        for name in flashinfer_ssd.__all__:
            if name != "__version__":
                self.assertEqual(getattr(flashinfer_ssd, name).__module__, "flashinfer_ssd")

    def test_objects_say_what_they_are(self):
        with flashinfer_ssd.open(TWO) as model:
            self.assertEqual(repr(model), f"<Model {TWO!r}: 2 tensors>")
            self.assertEqual(model.keys(), ["first", "second"])
            self.assertEqual(str(model.tensor("second")), "second: F32 [3, 4]")
            self.assertIn("name='second'", repr(model.tensor("second")))
            piece, = model.load_parts([model.tensor("second").rows(1, 2)])
            self.assertEqual(repr(piece), "<Piece of second: F32 [3, 4]: rows 1 to 3, 32 bytes>")
        self.assertIn("closed", repr(model))


class BadInput(unittest.TestCase):
    def test_files(self):
        self.assertRaisesRegex(flashinfer_ssd.NoSuchFile, "No such file", flashinfer_ssd.open, "/nowhere")
        self.assertRaises(FileNotFoundError, flashinfer_ssd.open, "/nowhere")
        self.assertRaisesRegex(flashinfer_ssd.BadData, "neither", flashinfer_ssd.open, FOREIGN)
        self.assertRaisesRegex(flashinfer_ssd.BadData, "ends at byte", flashinfer_ssd.open, TRUNCATED)
        self.assertRaises(flashinfer_ssd.BadData, flashinfer_ssd.Generator, TWO)

    def test_amounts(self):
        for ram in (2e9, np.int64(2 * 10**9), np.float64(2e9), "2GB", 2 * 10**9):
            with flashinfer_ssd.open(TWO, ram=ram) as model:
                self.assertEqual(model.plan.budget, 2 * 10**9)
        for ram in (object(), [1], 1j):
            self.assertRaisesRegex(TypeError, "ram is a number of bytes", flashinfer_ssd.open, TWO, ram=ram)
        for ram in (-1, float("nan"), float("inf"), "2 gigabytes", 1 << 63):
            self.assertRaisesRegex(ValueError, "ram is .* no number of bytes", flashinfer_ssd.open, TWO, ram=ram)
        self.assertRaisesRegex(TypeError, "queue_depth is a whole number", flashinfer_ssd.open, TWO, queue_depth=1.5)
        self.assertRaisesRegex(flashinfer_ssd.Invalid, "queue_depth is 2048, not 1 to 1024", flashinfer_ssd.open, TWO,
                               queue_depth=2048)

    def test_lists(self):
        with flashinfer_ssd.open(TWO) as model:
            for wrong in ("first", model.tensors[0], model.tensors[0].rows(0)):
                self.assertRaisesRegex(TypeError, "a list of tensors", model.stream, wrong)
                self.assertRaisesRegex(TypeError, "a list of tensors", model.load_parts, wrong)
            self.assertRaisesRegex(ValueError, "empty", model.load_parts, [])
            self.assertEqual(list(model.stream([])), [])
            self.assertRaisesRegex(flashinfer_ssd.NotFound, "no part 5 of tensor 'second'", model.load_parts, [(1, 5)])
            self.assertRaisesRegex(flashinfer_ssd.NotFound, "no tensor number 9", model.load_parts, [(9, 0)])
            self.assertRaisesRegex(flashinfer_ssd.NotFound, "no expert 0 in layer 0", model.bundle, 0, 0)
            self.assertRaisesRegex(TypeError, "the name is text", model.load, 3)

    def test_folders(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertRaisesRegex(flashinfer_ssd.NoSuchFile, "no safetensors file", flashinfer_ssd.open, folder)

    def test_budgets(self):
        self.assertRaisesRegex(flashinfer_ssd.NotEnoughMemory, "smallest that works", flashinfer_ssd.open, TWO, ram="1MiB")
        self.assertRaisesRegex(flashinfer_ssd.NotEnoughMemory, "smallest that works", flashinfer_ssd.Generator, MODEL, ram="1MiB")
        self.assertRaises(ValueError, flashinfer_ssd.open, TWO, ram="much")
        self.assertRaisesRegex(ValueError, "not one of auto", flashinfer_ssd.open, TWO, io="fast")
        self.assertRaises(ValueError, flashinfer_ssd.open, TWO, queue_depth=-1)
        self.assertRaises(ValueError, flashinfer_ssd.Generator, MODEL, threads=1 << 32)
        with flashinfer_ssd.open(LARGE, ram=(resident() + 40 << 20)) as model:
            self.assertRaises(flashinfer_ssd.NotEnoughMemory, model.load, "layer.0.weight")

    def test_what_errors_say(self):
        with self.assertRaises(flashinfer_ssd.NoSuchFile) as caught:
            flashinfer_ssd.open("/nowhere/model")
        failure = caught.exception
        self.assertEqual((failure.status, failure.path, failure.offset, failure.system_error),
                         (4, "/nowhere/model", None, 2))
        self.assertEqual((failure.errno, failure.filename), (2, "/nowhere/model"))
        with self.assertRaises(flashinfer_ssd.BadData) as caught:
            flashinfer_ssd.open(TRUNCATED)
        self.assertEqual(caught.exception.path, TRUNCATED)
        self.assertIsInstance(caught.exception.offset, int)
        with self.assertRaises(flashinfer_ssd.NotEnoughMemory) as caught:
            flashinfer_ssd.open(TWO, ram="1MiB")
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
                with flashinfer_ssd.open(path) as model:
                    self.assertEqual(model["second"][0, 0], 100)
                    self.assertEqual(sum(piece.bytes.size for piece in model.stream()), 112)
            with flashinfer_ssd.Generator(gguf, context=32) as generator:
                self.assertTrue("".join(generator.generate("a b", max_tokens=3)) is not None)
            os.truncate(file, 100)
            with self.assertRaises(flashinfer_ssd.BadData) as caught:
                flashinfer_ssd.open(file)
            self.assertEqual(os.fsencode(caught.exception.path), file)
            self.assertIn(r"\xff\xfe \xc3(/\x80.safetensors", str(caught.exception))
            self.assertRaises(ValueError, flashinfer_ssd.open, "a\0b")

    def test_closed(self):
        model = flashinfer_ssd.open(TWO)
        pieces = model.stream()
        model.close()
        model.close()
        self.assertRaises(flashinfer_ssd.Closed, next, pieces)
        self.assertRaises(flashinfer_ssd.Closed, model.load, "first")
        self.assertRaises(flashinfer_ssd.Closed, lambda: model.statistics)
        generator = flashinfer_ssd.Generator(MODEL, context=64)
        generator.close()
        self.assertRaises(flashinfer_ssd.Closed, next, generator.generate("a"))

    def test_another_stream_ends_the_first(self):
        with flashinfer_ssd.open(TWO) as model:
            first = model.stream()
            next(first)
            model.stream()
            self.assertRaises(flashinfer_ssd.FlashInferError, next, first)

    def test_two_threads(self):
        with flashinfer_ssd.open(LARGE) as model:
            failures = []

            def use():
                for _ in range(20):
                    try:
                        for piece in model.stream():
                            piece.bytes[0]
                    except flashinfer_ssd.FlashInferError as failure:
                        failures.append(failure)

            threads = [threading.Thread(target=use) for _ in range(2)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            self.assertEqual(len(list(model.stream(["layer.1.weight"]))), 3)

    def test_fork(self):
        model = flashinfer_ssd.open(TWO)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                model["first"]
            except flashinfer_ssd.Forked:
                with flashinfer_ssd.open(TWO) as own:
                    status = 0 if own["first"][3] == 3 else 2
            os._exit(status)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(model["first"][3], 3)


class Interrupting(unittest.TestCase):
    def interrupt_after(self, seconds, body):
        # Ends the program where nothing is interrupted.
        faulthandler.dump_traceback_later(30, exit=True)
        with self.assertRaises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, seconds)
            body()
        faulthandler.cancel_dump_traceback_later()

    @staticmethod
    def texts(generator, prompt, count):
        while True:
            for text in generator.generate(prompt, max_tokens=count):
                pass

    def setUp(self):
        # As Ctrl-C does, but for the timer's signal.
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGALRM, before)

    def test_a_stream(self):
        def forever():
            while True:
                for piece in model.stream():
                    piece.bytes[0]

        with flashinfer_ssd.open(LARGE) as model:
            self.interrupt_after(0.3, forever)
            self.assertEqual(model.load("layer.2.weight").shape, (300, 20000))

    def test_text(self):
        with flashinfer_ssd.Generator(MODEL, context=500) as generator:
            self.interrupt_after(0.3, lambda: self.texts(generator, "a b c", 480))
            self.assertTrue("".join(generator.generate("a b c", max_tokens=20, temperature=0)))

    def test_text_at_any_moment(self):
        # Short answers, so that many interruptions strike where an answer begins or ends.
        with flashinfer_ssd.Generator(MODEL, context=64) as generator:
            moments = random.Random(7)
            for _ in range(150):
                self.interrupt_after(moments.uniform(0.001, 0.01), lambda: self.texts(generator, "a", 1))
                self.assertTrue("".join(generator.generate("a b c", max_tokens=2, temperature=0)))


class Text(unittest.TestCase):
    def test_generate(self):
        texts = ["".join(flashinfer_ssd.generate(MODEL, "a b c", max_tokens=12, temperature=0)) for _ in range(2)]
        self.assertTrue(texts[0])
        self.assertEqual(texts[0], texts[1])
        with flashinfer_ssd.Generator(MODEL, context=64) as generator:
            self.assertEqual("".join(generator.generate("a b c", max_tokens=12, temperature=0)), texts[0])
            next(generator.generate("a b c", max_tokens=40))
            self.assertEqual("".join(generator.generate("a b c", max_tokens=12, temperature=0)), texts[0])
            self.assertRaises(flashinfer_ssd.FlashInferError, next, generator.generate("a " * 200))
            self.assertRaisesRegex(flashinfer_ssd.Invalid, "no chat template", next, generator.chat("a"))
            self.assertRaisesRegex(ValueError, "character", generator.generate, "a\ud800")
            self.assertRaisesRegex(ValueError, "NUL", generator.generate, "a\0")
            self.assertRaises(ValueError, generator.generate, "a", top_k=-1)
            for wrong in ({"min_p": 2}, {"min_p": -1}, {"repetition_penalty": float("nan")}, {"top_p": 0}):
                self.assertRaisesRegex(flashinfer_ssd.Invalid, next(iter(wrong)), next, generator.generate("a", **wrong))
            greedy = "".join(generator.generate("a b c", max_tokens=12, temperature=0))
            # With the share of the most probable token alone, sampling is greedy.
            self.assertEqual("".join(generator.generate("a b c", max_tokens=12, temperature=2, min_p=1)), greedy)
            self.assertNotEqual("".join(generator.generate("a b c", max_tokens=12, temperature=0, repetition_penalty=9)),
                                greedy)

    def test_a_seed_is_drawn_unless_given(self):
        with flashinfer_ssd.Generator(MODEL, context=64) as generator:
            answers = [generator.generate("a b c", max_tokens=24, temperature=1.5) for _ in range(12)]
            self.assertEqual(answers[0].seed, None)
            texts = ["".join(answer) for answer in answers]
            self.assertGreater(len(set(texts)), 1)
            self.assertEqual(len({answer.seed for answer in answers}), 12)
            again = generator.generate("a b c", max_tokens=24, temperature=1.5, seed=answers[2].seed)
            self.assertEqual("".join(again), texts[2])
            zeros = ["".join(generator.generate("a b c", max_tokens=24, temperature=1.5, seed=0)) for _ in range(2)]
            self.assertEqual(*zeros)

    def test_answers_say_why_they_end(self):
        with flashinfer_ssd.Generator(MODEL, context=64) as generator:
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
        with flashinfer_ssd.Generator(CHAT, context=256) as generator:
            user = {"role": "user", "content": "the ant"}
            counts = []
            for messages in ("the ant", [user], [{"role": "system", "content": "an"}, user],
                             [user, {"role": "assistant", "content": "a"}, user]):
                answer = generator.chat(messages, max_tokens=2, temperature=0)
                list(answer)
                counts.append(answer.prompt_token_count)
            self.assertEqual(counts[0], counts[1])
            self.assertTrue(counts[1] < counts[2] and counts[1] < counts[3], counts)
            list(generator.chat([user, user], max_tokens=1))
            self.assertRaises(flashinfer_ssd.Invalid, list, generator.chat([]))
            for wrong in ([{"role": "user"}], [{"content": "a"}], ["a"], [{"role": 1, "content": "a"}]):
                self.assertRaises((flashinfer_ssd.Invalid, TypeError, ValueError), lambda: list(generator.chat(wrong)))
            with self.assertRaisesRegex(flashinfer_ssd.Invalid, r"messages\[1\]"):
                list(generator.chat([user, {"role": "user", "content": None}]))
            self.assertRaises(TypeError, generator.chat, [{"role": "user", "content": b"a"}])
            parts = [{"role": "user", "content": [{"type": "text", "text": "the ant"}]}]
            answer = generator.chat(parts, max_tokens=1, tools=[], documents=[], template_arguments={"day": "x"})
            list(answer)
            self.assertEqual(answer.prompt_token_count, counts[0])

    def test_two_bos_tokens_are_warned_of(self):
        with flashinfer_ssd.Generator(CHAT, context=64) as generator:
            with self.assertWarnsRegex(UserWarning, "two BOS"):
                list(generator.generate("<s>the ant", max_tokens=1))
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                list(generator.generate("the ant", max_tokens=1))
                list(generator.chat("<s>the ant", max_tokens=1))

    def test_a_vocabulary_that_cannot_be_used_is_said(self):
        with open(MODEL, "rb") as file:
            whole = file.read()
        key = whole.index(b"tokenizer.ggml.model") + len(b"tokenizer.ggml.model") + 12
        length = int.from_bytes(whole[key - 8:key], "little")
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "odd.gguf")
            with open(path, "wb") as file:
                file.write(whole[:key] + b"rwkv5"[:length].ljust(length, b"x") + whole[key + length:])
            with self.assertRaisesRegex(flashinfer_ssd.BadData, "odd.gguf.*rwkv") as caught:
                flashinfer_ssd.Generator(path, context=64)
            self.assertEqual(caught.exception.path, path)
            # Tensors need no vocabulary.
            with flashinfer_ssd.open(path) as model, flashinfer_ssd.open(MODEL) as other:
                self.assertEqual(model.keys(), other.keys())

    def test_a_tensor_of_a_type_that_is_not_known_is_listed_and_read(self):
        with flashinfer_ssd.open(MODEL) as model:
            tensor = model.tensor("blk.0.ffn_up.weight")
        with open(MODEL, "rb") as file:
            whole = bytearray(file.read())
        name = b"blk.0.ffn_up.weight"
        dimensions = whole.index(name) + len(name)
        kind = dimensions + 4 + 8 * int.from_bytes(whole[dimensions:dimensions + 4], "little")
        stored = bytes(whole[tensor.file_offset:tensor.file_offset + tensor.byte_count])
        for number in (36, 99, 200):
            whole[kind:kind + 4] = number.to_bytes(4, "little")
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "odd.gguf")
                with open(path, "wb") as file:
                    file.write(whole)
                with flashinfer_ssd.open(path) as model:
                    self.assertIn(tensor.name, model.keys())
                    odd = model.tensor(tensor.name)
                    self.assertEqual(odd.file_offset, tensor.file_offset)
                    self.assertEqual(np.asarray(model[odd.name]).tobytes()[:len(stored)], stored)
                with self.assertRaisesRegex(flashinfer_ssd.BadData, "blk.0.ffn_up.weight"):
                    flashinfer_ssd.Generator(path, context=64)

    def test_closing_waits_for_answers_left_standing(self):
        for _ in range(20):
            generator = flashinfer_ssd.Generator(MODEL, context=500)
            answer = generator.generate("a b c", max_tokens=480)
            next(answer)
            generator.close()
            self.assertEqual(answer.finish_reason, "cancelled")


class Engines(unittest.TestCase):
    def test_many_sequences_bring_what_each_brings_alone(self):
        prompts = ["a b c", "the ant", "x" * 40, "d"]
        with flashinfer_ssd.Engine(MODEL, context=200, sequences=1) as engine:
            self.assertEqual(engine.warnings(), [])
            alone = []
            for prompt in prompts:
                with engine.open(prompt, max_tokens=20, temperature=1.5, seed=3, ignore_end=True) as sequence:
                    alone.append("".join(sequence))
                    self.assertEqual((sequence.finish_reason, sequence.token_count, sequence.seed), ("length", 20, 3))
        with flashinfer_ssd.Engine(MODEL, context=200, sequences=3, threads=2) as engine:
            open_ones = [engine.open(prompt, max_tokens=20, temperature=1.5, seed=3, ignore_end=True)
                         for prompt in prompts * 2]
            texts = []
            for sequence in open_ones:
                texts.append("".join(sequence))
                sequence.close()
            self.assertEqual(texts, alone * 2)
            for wrong in ([2**32 + 5], [-1], [1.5], b"abc"):
                self.assertRaises((ValueError, TypeError), engine.open, wrong)
            state = engine.state
            self.assertEqual((state.sequence_count, state.context_length, state.queued_count), (3, 200, 0))
            self.assertEqual(state.drawn, 20 * len(open_ones))
            self.assertTrue(0 < state.sweeps < state.rows and 0 < state.sweep_nanoseconds)
            self.assertTrue(state.lent <= state.key_values <= state.budget)
            self.assertEqual([token.text for token in engine.open([1, 2], max_tokens=0).tokens()], [])

    def test_a_context_that_was_kept_is_taken_up(self):
        prompt = [i * 37 % 250 for i in range(300)]
        with tempfile.TemporaryDirectory() as folder:
            answers = []
            for use_store in (True, True, False):
                with flashinfer_ssd.Engine(MODEL, context=400, kv_store=folder, kv_type="q4") as engine:
                    with engine.open(prompt, max_tokens=5, seed=1, use_store=use_store, ignore_end=True) as sequence:
                        answers.append("".join(sequence))
                        self.assertEqual(sequence.reused_token_count, 300 if len(answers) == 2 else 0)
                    self.assertEqual(engine.warnings(), [])
            self.assertEqual(answers, answers[:1] * 3)
            with self.assertRaises(ValueError):
                flashinfer_ssd.Engine(MODEL, kv_policy="some")

    def test_each_engine_of_a_cluster_takes_a_drive_of_its_machine(self):
        from flashinfer_ssd._drives import Drive, TakenDrive, listed

        with tempfile.TemporaryDirectory() as folder:
            drives = listed([Drive("/nowhere/model.gguf", folder + "/none"), Drive(MODEL, folder + "/a/kv"),
                             Drive(MODEL, folder + "/b/kv")])
            first, second = TakenDrive(drives), TakenDrive(drives)
            self.assertEqual([first.drive, second.drive], drives[1:])
            self.assertRaisesRegex(RuntimeError, "other engines have all drives.*/a/kv.*/b/kv", TakenDrive, drives)
            first.close()
            self.assertEqual(TakenDrive(drives).drive, drives[1])
            self.assertRaisesRegex(RuntimeError, "no model is there", TakenDrive, drives[:1])
            # Without a store there is nothing to share.
            self.assertEqual([TakenDrive(listed(MODEL)).drive for _ in range(2)], [Drive(MODEL)] * 2)
            self.assertRaises(ValueError, listed, [])

    def test_it_is_told_what_of_a_prompt_is_stored(self):
        prompt = [i * 37 % 250 for i in range(300)]
        with tempfile.TemporaryDirectory() as folder, flashinfer_ssd.Engine(MODEL, context=400, kv_store=folder) as engine:
            wanted = engine.prompt_hashes(prompt)
            self.assertEqual((len(wanted), engine.prompt_hashes(prompt[:127]), engine.stored_hashes()), (2, [], []))
            self.assertEqual(engine.prompt_hashes(prompt[:200]), wanted[:1])
            with engine.open(prompt, max_tokens=1, seed=1) as sequence:
                "".join(sequence)
            while not engine.stored_hashes():
                time.sleep(0.01)
            self.assertEqual(set(engine.stored_hashes()), set(wanted))
            with flashinfer_ssd.Engine(CHAT) as other:
                self.assertEqual(other.prompt_hashes(prompt), wanted)
                self.assertNotEqual(other.chat_hashes("words " * 400), [])
            self.assertRaises(flashinfer_ssd.Invalid, engine.chat_hashes, [])

    def test_turns_forks_and_cuts(self):
        def ids(sequence):
            return [token.id for token in sequence.tokens() if token.id >= 0]

        with flashinfer_ssd.Engine(MODEL, context=200, sequences=3) as engine:
            options = {"temperature": 0, "ignore_end": True}
            with engine.open([5, 6, 7], max_tokens=12, **options) as sequence:
                whole = ids(sequence)
            sequence = engine.open([5, 6, 7], max_tokens=4, log_probabilities=2, **options)
            first = [token for token in sequence.tokens() if token.id >= 0]
            self.assertTrue(all(token.log_probabilities[0][0] == token.id for token in first))
            self.assertEqual([token.position for token in first], [3, 4, 5, 6])
            second = ids(sequence.append([], max_tokens=8))
            self.assertEqual([token.id for token in first] + second, whole)
            self.assertEqual((sequence.prompt_token_count, sequence.reused_token_count), (7, 6))
            with sequence.fork(3, stream=0) as fork:
                self.assertEqual(ids(fork.append([], max_tokens=12)), whole)
            sequence.truncate(3)
            self.assertEqual(ids(sequence.append([], max_tokens=12)), whole)
            self.assertRaises(flashinfer_ssd.Invalid, sequence.truncate, 999)
            sequence.append("and so on", max_tokens=100)
            self.assertRaises(flashinfer_ssd.Busy, sequence.append, "no")
            sequence.cancel()
            sequence.cancel()
            list(sequence)
            # A tiny model may have been faster.
            self.assertIn(sequence.finish_reason, ("cancelled", "length"))
            self.assertRaises(flashinfer_ssd.Closed, sequence.append, "no")
            sequence.close()
            self.assertRaises(flashinfer_ssd.Closed, sequence.append, "no")
            sequence.cancel()

    def test_stop_strings(self):
        options = {"max_tokens": 30, "temperature": 0, "ignore_end": True}
        with flashinfer_ssd.Engine(MODEL, context=200) as engine:
            text = "".join(engine.open("a b c", **options))
            stop = text[len(text) // 2:len(text) // 2 + 2]
            sequence = engine.open("a b c", stop=["never there", stop], **options)
            self.assertEqual("".join(sequence), text[:text.index(stop)])
            self.assertEqual((sequence.finish_reason, sequence.stop), ("stop", stop))

    def test_event_loops(self):
        prompts = ["a", "b", "c", "d", "e"]

        async def answer(engine, prompt):
            with engine.open(prompt, max_tokens=15, temperature=0) as sequence:
                return "".join([text async for text in sequence])

        async def answers(engine):
            return await asyncio.gather(*[answer(engine, prompt) for prompt in prompts])

        with flashinfer_ssd.Engine(MODEL, context=100, sequences=2) as engine:
            expected = []
            for prompt in prompts:
                with engine.open(prompt, max_tokens=15, temperature=0) as sequence:
                    expected.append("".join(sequence))
            self.assertEqual(asyncio.run(answers(engine)), expected)
            self.assertEqual(asyncio.run(answers(engine)), expected)

            async def tokens():
                with engine.open("a", max_tokens=15, temperature=0, log_probabilities=2) as sequence:
                    return [token async for token in sequence.async_tokens()]

            with engine.open("a", max_tokens=15, temperature=0, log_probabilities=2) as sequence:
                self.assertEqual(asyncio.run(tokens()), list(sequence.tokens()))

    def test_places_and_wrong_arguments(self):
        with flashinfer_ssd.Engine(MODEL, context=64, sequences=1) as engine:
            first = engine.open("a", max_tokens=1)
            self.assertRaisesRegex(flashinfer_ssd.NotEnoughMemory, "all 1 sequences", engine.open, "b", queue=False)
            self.assertRaises(TypeError, engine.open, "a", max_token=1)
            self.assertRaises(ValueError, engine.open, "a\0")
            self.assertRaises(flashinfer_ssd.Invalid, engine.open, "a " * 200)
            self.assertRaises(flashinfer_ssd.Invalid, engine.open, [])
            first.close()
            self.assertIsNotNone("".join(engine.open("b", max_tokens=1, queue=False)))
        self.assertRaises(flashinfer_ssd.Closed, engine.open, "a")
        self.assertRaises(flashinfer_ssd.NoSuchFile, flashinfer_ssd.Engine, "/nowhere")

    def test_ctrl_c_strikes_a_wait_and_the_sequence_goes_on(self):
        with flashinfer_ssd.Engine(MODEL, context=64, sequences=1) as engine:
            blocker = engine.open("a", max_tokens=1)
            list(blocker)
            waiting = engine.open("b", max_tokens=3, temperature=0)
            threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            with self.assertRaises(KeyboardInterrupt):
                list(waiting)
            blocker.close()
            self.assertIsNotNone("".join(waiting))
            self.assertIsNotNone(waiting.finish_reason)


unittest.main(argv=sys.argv[:1])
