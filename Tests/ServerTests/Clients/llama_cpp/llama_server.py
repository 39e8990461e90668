#!/usr/bin/env python3
"""Starts flashinfer-serve with what llama.cpp's tests give llama-server, as far as there is the same here."""

import os
import sys
import tempfile

# With the number of values of each; what is not here is left out.
TAKEN = {"--port", "--host", "--ctx-size", "--parallel", "--alias", "--api-key", "--chat-template", "--chat-template-file"}


def parsed(arguments):
    """Options by their names."""
    options = {}
    for name, value in zip(arguments, arguments[1:] + [""]):
        if name in TAKEN:
            options[name] = value
    return options


def kept(folder, name, text):
    path = os.path.join(folder, name)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(text)
    return path


def main():
    options = parsed(sys.argv[1:])
    folder = tempfile.mkdtemp(dir=os.environ["LLAMA_TESTS_FOLDER"])
    sequences = int(options.get("--parallel", 4))
    command = [
        os.environ["FLASHINFER_SERVE"], os.environ["FLASHINFER_MODEL"], "--ram", "1GiB",
        "--port", options["--port"], "--host", options["--host"], "--sequences", str(sequences),
        # llama.cpp's is that of all of them together.
        "--context", str(int(options.get("--ctx-size", 4096)) // sequences),
        "--model-name", options.get("--alias", "default"),
    ]
    if "--api-key" in options:
        command += ["--api-key-file", kept(folder, "keys", options["--api-key"])]
    # The model's own has no place for tools.
    template = options.get("--chat-template-file", os.environ["FLASHINFER_TEMPLATE"])
    if "--chat-template" in options:
        template = kept(folder, "template", options["--chat-template"])
    command += ["--chat-template", template]
    os.environ["XDG_CACHE_HOME"] = folder
    os.execv(command[0], command)


main()
