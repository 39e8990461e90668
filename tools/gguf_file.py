"""GGUF files, read and written with Python's own library: what tools/enlarge and tools/cut-layers are made of."""
import argparse
import math
import os
import signal
import struct
import sys
import tempfile
from dataclasses import dataclass

UINT32, FLOAT32, STRING, ARRAY = 4, 6, 8, 9
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
# Elements and bytes of a block, by ggml's number of the type.
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84), 11: (256, 110),
    12: (256, 144), 13: (256, 176), 14: (256, 210), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


class Refusal(Exception):
    """A reason to write nothing, with the status to exit with."""

    def __init__(self, message, status=65):
        super().__init__(message)
        self.status = status


def byte_count(text):
    """4GiB, 6GB, 500000."""
    number = text.rstrip("BbGgIiKkMm")
    unit = UNITS.get(text[len(number):].upper())
    try:
        count = float(number) * unit
    except (TypeError, ValueError):
        count = 0
    if not 1 <= count < 1 << 60:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 4GiB or 6GB")
    return math.ceil(count)


@dataclass
class Tensor:
    name: str
    shape: tuple  # Columns, rows and so on, as GGUF has them.
    type: int
    offset: int = 0  # In the file that it was read from.

    @property
    def row_bytes(self):
        elements, count = BLOCKS[self.type]
        return self.shape[0] // elements * count

    @property
    def rows(self):
        return math.prod(self.shape[1:])

    @property
    def byte_count(self):
        return self.row_bytes * self.rows


class GGUFFile:
    """What a GGUF file says of itself, and its tensors' bytes."""

    def __init__(self, path):
        self.path = path
        try:
            self.file = open(path, "rb")
            self.size = os.fstat(self.file.fileno()).st_size
        except OSError as error:
            raise Refusal(f"{path}: {error.strerror}", 66) from None
        try:
            self._parse()
        except (struct.error, EOFError, KeyError, UnicodeDecodeError, ValueError, OverflowError, OSError) as error:
            raise Refusal(f"{path}: it is damaged, or not a GGUF file that can be read ({error})") from None

    def _parse(self):
        if self._take(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version, tensor_count, field_count = struct.unpack("<IQQ", self._take(20))
        if version not in (2, 3):
            raise ValueError(f"version {version}")
        self.fields = {}  # Name: type, and the value's bytes.
        for _ in range(field_count):
            name, kind = self._text(), self._number("<I")
            self.fields[name] = kind, self._value(kind)
        self.tensors = {}
        for _ in range(tensor_count):
            name = self._text()
            shape = tuple(self._number("<Q") for _ in range(self._number("<I")))
            self.tensors[name] = Tensor(name, shape, self._number("<I"), self._number("<Q"))
        self.alignment = self.number("general.alignment", 32)
        start = padded(self.file.tell(), self.alignment)
        for tensor in self.tensors.values():
            if tensor.type not in BLOCKS:
                raise ValueError(f"{tensor.name} has type {tensor.type}")
            if not tensor.shape or min(tensor.shape) < 1 or tensor.shape[0] % BLOCKS[tensor.type][0]:
                raise ValueError(f"the shape of {tensor.name}")
            tensor.offset += start
            if tensor.offset + tensor.byte_count > self.size:
                raise ValueError(f"{tensor.name} ends behind the end of the file")

    def _take(self, count):
        data = self.file.read(count) if count <= self.size else b""
        if len(data) < count:
            raise EOFError("it ends within its header")
        return data

    def _number(self, format):
        return struct.unpack(format, self._take(struct.calcsize(format)))[0]

    def _text(self):
        return self._take(self._number("<Q")).decode()

    def _value(self, kind):
        if kind in SCALARS:
            return self._take(struct.calcsize(SCALARS[kind]))
        start = self.file.tell()
        if kind == STRING:
            self._take(self._number("<Q"))
        elif kind == ARRAY:
            element, count = struct.unpack("<IQ", self._take(12))
            if element in SCALARS:
                self._take(struct.calcsize(SCALARS[element]) * count)
            elif element == STRING:
                for _ in range(count):
                    self._take(self._number("<Q"))
            else:
                raise ValueError(f"an array of type {element}")
        else:
            raise ValueError(f"a value of type {kind}")
        length = self.file.tell() - start
        self.file.seek(start)
        return self._take(length)

    def number(self, name, default=None):
        """A number by its name; one that is missing, without a default, or no single number is refused."""
        kind, value = self.fields.get(name, (None, b""))
        if kind in SCALARS:
            return struct.unpack(SCALARS[kind], value)[0]
        if kind is None and default is not None:
            return default
        raise Refusal(f"{self.path}: {name} is {'missing' if kind is None else 'not one number'}")

    def text(self, name):
        kind, value = self.fields.get(name, (None, b""))
        return value[8:].decode(errors="replace") if kind == STRING else ""

    def rows(self, tensor, first, count):
        """The bytes of some rows."""
        self.file.seek(tensor.offset + first * tensor.row_bytes)
        return self._take(count * tensor.row_bytes)


def text_value(text):
    return STRING, struct.pack("<Q", len(text.encode())) + text.encode()


def padded(count, alignment):
    return -(-count // alignment) * alignment


def header(fields, tensors, alignment):
    """The bytes before the tensors."""
    def name(text):
        return text_value(text)[1]

    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(fields))]
    for key, (kind, value) in fields.items():
        parts += [name(key), struct.pack("<I", kind), value]
    offset = 0
    for tensor in tensors:
        parts += [name(tensor.name), struct.pack("<I", len(tensor.shape)), *(struct.pack("<Q", n) for n in tensor.shape),
                  struct.pack("<IQ", tensor.type, offset)]
        offset += padded(tensor.byte_count, alignment)
    data = b"".join(parts)
    return data + bytes(padded(len(data), alignment) - len(data))


def file_size(fields, tensors, alignment):
    return len(header(fields, tensors, alignment)) + sum(padded(tensor.byte_count, alignment) for tensor in tensors)


def check_output(source, path, force):
    """Refuses an output that must not be written, before anything is done for it."""
    if os.path.exists(path):
        if not os.path.isfile(path):
            raise Refusal(f"{path}: only a regular file is replaced", 64)
        if os.path.samefile(source, path):
            raise Refusal(f"{path}: it is the file being read", 64)
        if not force:
            raise Refusal(f"{path}: it exists; --force replaces it", 64)


def write(path, fields, tensors, alignment, chunks):
    """Writes a file that appears under its name when it is whole; `chunks(tensor)` gives a tensor's bytes in pieces."""
    folder = os.path.dirname(path) or "."
    part = None
    try:
        descriptor, part = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=folder)
        with open(descriptor, "wb") as out:
            os.posix_fallocate(out.fileno(), 0, file_size(fields, tensors, alignment))
            out.write(header(fields, tensors, alignment))
            for tensor in tensors:
                count = sum(out.write(chunk) for chunk in chunks(tensor))
                assert count == tensor.byte_count, tensor.name
                out.write(bytes(padded(count, alignment) - count))
            out.flush()
            os.fsync(out.fileno())
        os.chmod(part, 0o666 & ~umask())
        os.rename(part, path)
    except OSError as error:
        raise Refusal(f"{path}: {error.strerror}", 73) from None
    finally:
        if part and os.path.exists(part):
            os.unlink(part)


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def run(main):
    """Runs a tool: refusals are one line, and what ends it lets it take away what is half written."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except Refusal as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        sys.exit(refusal.status)
    except KeyboardInterrupt:
        sys.exit(130)


class Arguments(argparse.ArgumentParser):
    """A parser whose refusals look like those of the programs."""

    def __init__(self, description):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
                         prog=f"tools/{os.path.basename(sys.argv[0])}")

    def error(self, message):
        print(f"error: {message}", file=sys.stderr)
        sys.exit(64)
