"""What the distribution says of itself, and for which systems its library works."""
import os, pathlib, struct

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
NAME = "flashinfer_ssd"
# What flashinfer_ssd.ray was tried with; routers are no stable interface of Ray's yet.
RAY = ">=2.60,<3"
VERSION = (ROOT / "VERSION").read_text().strip()

# Libraries that PEP 600 promises on every system of a manylinux tag.
PROMISED = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libgcc_s.so.1", "libstdc++.so.6",
            "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
# Highest GLIBCXX_3.4.N that systems with glibc 2.M have, as (N, M).
CXX_OF_GLIBC = [(19, 17), (22, 24), (24, 27), (28, 31), (29, 34), (30, 35), (33, 39)]

def metadata():
    """The METADATA file, which is a source distribution's PKG-INFO too."""
    classifiers = ["Development Status :: 4 - Beta", "Intended Audience :: Developers",
                   "Operating System :: POSIX :: Linux", "Programming Language :: Python :: 3", "Typing :: Typed",
                   "Topic :: Scientific/Engineering :: Artificial Intelligence"]
    lines = ["Metadata-Version: 2.4", f"Name: {NAME.replace('_', '-')}", f"Version: {VERSION}",
             "Summary: Tensors of files larger than memory, at the speed of the drive, within a budget",
             "License-Expression: Apache-2.0 WITH Swift-exception"]
    lines += [f"License-File: {name}" for name in licenses()]
    lines += ["Keywords: gguf,safetensors,llm,out-of-core,io_uring", *(f"Classifier: {text}" for text in classifiers),
              "Requires-Python: >=3.9", "Requires-Dist: numpy", "Provides-Extra: ray",
              f"Requires-Dist: ray[data,serve]{RAY}; extra == 'ray'", "Description-Content-Type: text/markdown"]
    return "\n".join(lines) + "\n\n" + (HERE / "README.md").read_text()

def licenses():
    """Names of the files at the repository's root that say what is allowed."""
    return [name for name in ("LICENSE", "NOTICE") if (ROOT / name).exists()]

def platform_tag(library):
    """The tag of the systems that a shared library (64-bit ELF, little-endian) runs on, by what it asks of them.

    `manylinux_2_N` where it needs nothing but what PEP 600 promises and no glibc above 2.N; otherwise `linux`.
    """
    machine = os.uname().machine
    needed, versions = requirements(library)
    if not needed <= PROMISED: return f"linux_{machine}"
    def highest(prefix):
        return max((int(version[len(prefix):].split(".")[0]) for version in versions if version.startswith(prefix)), default=0)
    glibc, cxx = highest("GLIBC_2."), highest("GLIBCXX_3.4.")
    of_cxx = next((minor for level, minor in CXX_OF_GLIBC if cxx <= level), None)
    if of_cxx is None: return f"linux_{machine}"
    # No system with Swift's libraries is older than the oldest tag.
    return f"manylinux_2_{max(17, glibc, of_cxx)}_{machine}"

def requirements(library):
    """Names of the libraries that an ELF file needs, and of the versions of their symbols."""
    if library[:6] != b"\x7fELF\x02\x01": raise SystemExit("libflashinfer is no 64-bit ELF file")
    start, = struct.unpack_from("<Q", library, 0x28)
    size, count = struct.unpack_from("<HH", library, 0x3A)
    # name, type, flags, address, offset, size, link, info, alignment, entry size
    sections = [struct.unpack_from("<IIQQQQIIQQ", library, start + index * size) for index in range(count)]
    needed, versions = set(), set()
    for section in sections:
        if section[1] not in (6, 0x6FFFFFFE): continue
        strings, place = sections[section[6]][4], section[4]
        def text(offset): return library[strings + offset:library.index(b"\0", strings + offset)].decode()
        if section[1] == 6:
            for offset in range(place, place + section[5], 16):
                tag, value = struct.unpack_from("<QQ", library, offset)
                if tag == 1: needed.add(text(value))
            continue
        for _ in range(section[7]):
            _, entries, _, first, following = struct.unpack_from("<HHIII", library, place)
            entry = place + first
            for _ in range(entries):
                _, _, _, name, step = struct.unpack_from("<IHHII", library, entry)
                versions.add(text(name))
                entry += step
            place += following
    return needed, versions
