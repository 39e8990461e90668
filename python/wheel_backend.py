"""Builds the wheel (PEP 517) without any other package: the Python files and libflashinfer.

The library is the one that FLASHINFER_LIBRARY names, or is built from the sources around this folder with
tools/install, which needs Swift.
"""
import base64, hashlib, os, pathlib, subprocess, tempfile, zipfile

HERE = pathlib.Path(__file__).resolve().parent
# As pyproject.toml has them.
NAME, VERSION, SUMMARY = "flashinfer_ssd", "1.0.0", "Tensors of files larger than memory, at the speed of the drive"
TAG = f"py3-none-linux_{os.uname().machine}"
INFORMATION = f"{NAME}-{VERSION}.dist-info"

def library(folder):
    """The shared library's path, built into `folder` where none is given."""
    if given := os.environ.get("FLASHINFER_LIBRARY"): return pathlib.Path(given)
    tool = HERE.parent / "tools" / "install"
    if not tool.exists():
        raise SystemExit("libflashinfer is built from the whole repository: run pip install ./python there, or set FLASHINFER_LIBRARY")
    subprocess.run([tool, "--prefix", folder, "--library-only"], check=True)
    return pathlib.Path(folder) / "lib" / "libflashinfer.so.1"

def information():
    """Names and contents of what describes the package, RECORD apart."""
    metadata = (f"Metadata-Version: 2.1\nName: {NAME.replace('_', '-')}\nVersion: {VERSION}\n"
                f"Summary: {SUMMARY}\nRequires-Python: >=3.9\nRequires-Dist: numpy\n")
    wheel = f"Wheel-Version: 1.0\nGenerator: wheel_backend\nRoot-Is-Purelib: false\nTag: {TAG}\n"
    return {f"{INFORMATION}/METADATA": metadata.encode(), f"{INFORMATION}/WHEEL": wheel.encode()}

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    for path, content in information().items():
        target = pathlib.Path(metadata_directory) / path
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
    return INFORMATION

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    files = {f"flashinfer/{path.name}": path.read_bytes()
             for path in sorted((HERE / "flashinfer").iterdir()) if path.suffix in (".py", ".typed")}
    with tempfile.TemporaryDirectory() as folder:
        files["flashinfer/libflashinfer.so.1"] = library(folder).read_bytes()
    files.update(information())
    record = ""
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(content)}\n"
    files[f"{INFORMATION}/RECORD"] = (record + f"{INFORMATION}/RECORD,,\n").encode()
    name = f"{NAME}-{VERSION}-{TAG}.whl"
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / name, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, content in files.items(): wheel.writestr(path, content)
    return name

def build_sdist(sdist_directory, config_settings=None):
    raise SystemExit("there is no source distribution of the Python package alone: install from the repository")
