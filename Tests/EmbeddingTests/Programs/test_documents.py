"""Runs the Python code of documents and docstrings as it is shown.

usage: test_documents.py ROOT FOLDER; FOLDER has model.gguf, model.safetensors, model.bin and chat.gguf
"""
import contextlib
import doctest
import io
import os
import pathlib
import re
import sys
import textwrap
import unittest

import flashinfer_ssd

ROOT, FOLDER = map(pathlib.Path, sys.argv[1:])
DOCUMENTS = sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("*.md"), ROOT / "python" / "README.md"])


class Documents(unittest.TestCase):
    def setUp(self):
        os.chdir(FOLDER)
        self.arguments, sys.argv = sys.argv, ["program", "model.gguf"]

    def tearDown(self):
        sys.argv = self.arguments

    def run_code(self, code, name):
        output = io.StringIO()
        with self.subTest(name), contextlib.redirect_stdout(output):
            exec(compile(code, name, "exec"), {"__name__": "__main__"})
        self.assertTrue(output.getvalue().strip(), f"{name} prints nothing")

    def test_blocks_of_documents(self):
        count = 0
        for document in DOCUMENTS:
            for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", document.read_text(), re.M | re.S)):
                count += 1
                self.run_code(code, f"{document.relative_to(ROOT)}, block {number + 1}")
        self.assertGreaterEqual(count, 5)

    def test_the_program_that_the_package_begins_with(self):
        lines = flashinfer_ssd.__doc__.split("\n\n", 1)[1]
        self.run_code(textwrap.dedent(lines), "flashinfer_ssd.__doc__")

    def test_examples_in_docstrings(self):
        finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
        for name in flashinfer_ssd.__all__:
            # Whatever module it is from: each says that it is the package's.
            for test in finder.find(getattr(flashinfer_ssd, name), name, module=False, globs=vars(flashinfer_ssd)):
                runner.run(test)
        self.assertEqual(runner.failures, 0)
        self.assertGreaterEqual(runner.tries, 7)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
