"""Builds wheel and source distribution (PEP 517) without any other package.

The wheel holds the Python files and libflashinfer: the one that FLASHINFER_LIBRARY names, or one that tools/install
builds from the sources around this folder, which needs Swift. The source distribution holds those sources.
"""
import base64, hashlib, io, os, pathlib, subprocess, sys, tarfile, tempfile, zipfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from wheel_metadata import NAME, ROOT, VERSION, licenses, metadata, platform_tag

INFORMATION = f"{NAME}-{VERSION}.dist-info"
# What a source distribution takes of the repository: what building the library needs.
SOURCES = ["Package.swift", "README.md", "VERSION", "Sources", "Tests", "Fuzz/Driver", "Fuzz/CLibFuzzer", "Fuzz/Targets",
           "packaging", "tools/common.sh", "tools/install", "tools/uninstall", "python", "docs/embedding.md", "docs/format.md"]

def library():
    """The bytes of the shared library, which is built where none is given."""
    if given := os.environ.get("FLASHINFER_LIBRARY"): return pathlib.Path(given).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([ROOT / "tools" / "install", "--prefix", folder, "--library-only", "--self-contained"], check=True)
        return (pathlib.Path(folder) / "lib" / "libflashinfer.so").read_bytes()

def information(tag):
    """Names and contents of what describes the package, RECORD apart."""
    wheel = f"Wheel-Version: 1.0\nGenerator: wheel_backend\nRoot-Is-Purelib: false\nTag: py3-none-{tag}\n"
    files = {f"{INFORMATION}/METADATA": metadata().encode(), f"{INFORMATION}/WHEEL": wheel.encode()}
    return {**files, **{f"{INFORMATION}/licenses/{name}": (ROOT / name).read_bytes() for name in licenses()}}

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    files = {f"{NAME}/{path.name}": path.read_bytes()
             for path in sorted((HERE / NAME).iterdir()) if path.suffix in (".py", ".typed")}
    files[f"{NAME}/libflashinfer.so"] = shared = library()
    tag = platform_tag(shared)
    files.update(information(tag))
    record = ""
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(content)}\n"
    files[f"{INFORMATION}/RECORD"] = (record + f"{INFORMATION}/RECORD,,\n").encode()
    name = f"{NAME}-{VERSION}-py3-none-{tag}.whl"
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / name, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, content in files.items(): wheel.writestr(path, content)
    return name

def source_files():
    """What goes into a source distribution, by its path from the repository's root."""
    for name in SOURCES + licenses():
        path = ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts: yield str(file.relative_to(ROOT)), file

def build_sdist(sdist_directory, config_settings=None):
    base = f"{NAME}-{VERSION}"
    project = (HERE / "pyproject.toml").read_text().replace('backend-path = ["."]', 'backend-path = ["python"]')
    with tarfile.open(pathlib.Path(sdist_directory) / f"{base}.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for name, content in (("PKG-INFO", metadata()), ("pyproject.toml", project)):
            entry = tarfile.TarInfo(f"{base}/{name}")
            entry.size = len(content.encode())
            archive.addfile(entry, io.BytesIO(content.encode()))
        for name, path in source_files(): archive.add(path, f"{base}/{name}", recursive=False)
    return f"{base}.tar.gz"
