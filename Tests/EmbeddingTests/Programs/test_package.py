"""The distribution: beside flashinfer-python, its tag, its metadata, and a source distribution that builds.

usage: test_package.py ROOT LIBRARY; run in an environment that has pip, and without a network.
"""
import base64
import hashlib
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import unittest
import venv
import zipfile

ROOT, LIBRARY = map(pathlib.Path, sys.argv[1:])
sys.path.insert(0, str(ROOT / "python"))
sys.dont_write_bytecode = True
import wheel_backend
import wheel_metadata

os.environ["FLASHINFER_LIBRARY"] = str(LIBRARY)
VERSION = (ROOT / "VERSION").read_text().strip()


def stand_in(folder):
    """A wheel that owns what the distribution flashinfer-python owns: the package flashinfer."""
    path = folder / "flashinfer_python-0.7.2-py3-none-any.whl"
    information = "flashinfer_python-0.7.2.dist-info"
    files = {"flashinfer/__init__.py": "WHOSE = 'flashinfer-python'\n", "flashinfer/_native.py": "KERNELS = 1\n",
             f"{information}/METADATA": "Metadata-Version: 2.1\nName: flashinfer-python\nVersion: 0.7.2\n",
             f"{information}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    files[f"{information}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{information}/RECORD"])
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return path


class Package(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.wheel = cls.folder / wheel_backend.build_wheel(cls.folder)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def pip(self, python, *arguments):
        subprocess.run([sys.executable, "-m", "pip", "--python", python, *arguments], check=True, capture_output=True)

    def test_it_installs_beside_flashinfer_python_and_leaves_it_whole(self):
        other = stand_in(self.folder)
        with tempfile.TemporaryDirectory() as place:
            venv.create(place, system_site_packages=True)
            python = f"{place}/bin/python3"
            for order in ([other, self.wheel], [self.wheel, other]):
                for wheel in order:
                    self.pip(python, "install", "--no-index", "--no-deps", wheel)
                self.assertEqual(self.run_code(python, "import flashinfer, flashinfer._native, flashinfer_ssd\n"
                                               "print(flashinfer.WHOSE, flashinfer_ssd.__version__)"),
                                 f"flashinfer-python {VERSION}\n")
                self.pip(python, "uninstall", "-y", "flashinfer-ssd")
                self.assertEqual(self.run_code(python, "import flashinfer, flashinfer._native, importlib.util\n"
                                               "print(flashinfer.WHOSE, importlib.util.find_spec('flashinfer_ssd'))"),
                                 "flashinfer-python None\n")
                self.pip(python, "uninstall", "-y", "flashinfer-python")

    @staticmethod
    def run_code(python, code):
        return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, cwd="/").stdout

    def test_the_wheel_is_what_it_says(self):
        with zipfile.ZipFile(self.wheel) as wheel:
            information = f"flashinfer_ssd-{VERSION}.dist-info"
            record = wheel.read(f"{information}/RECORD").decode()
            names = set(wheel.namelist())
            self.assertTrue({"flashinfer_ssd/py.typed", "flashinfer_ssd/libflashinfer.so"} <= names)
            self.assertEqual({line.split(",")[0] for line in record.splitlines()}, names)
            for line in record.splitlines():
                name, digest, size = line.split(",")
                if digest:
                    found = base64.urlsafe_b64encode(hashlib.sha256(wheel.read(name)).digest()).rstrip(b"=").decode()
                    self.assertEqual((digest, int(size)), ("sha256=" + found, len(wheel.read(name))))
            metadata = wheel.read(f"{information}/METADATA").decode()
            self.assertIn(f"\nVersion: {VERSION}\n", metadata)
            self.assertIn("\nLicense-Expression: Apache-2.0 WITH Swift-exception\n", metadata)
            tag = wheel.read(f"{information}/WHEEL").decode().split("Tag: ")[1].strip()
            self.assertEqual(self.wheel.name, f"flashinfer_ssd-{VERSION}-{tag}.whl")

    def test_the_tag_is_what_the_library_asks_of_a_system(self):
        library = LIBRARY.read_bytes()
        needed, versions = wheel_metadata.requirements(library)
        listed = subprocess.run(["readelf", "-dVW", LIBRARY], check=True, capture_output=True, text=True).stdout
        self.assertEqual(needed, {line.split("[")[1].rstrip("]") for line in listed.splitlines() if "(NEEDED)" in line})
        for version in versions:
            self.assertIn(f"Name: {version} ", listed)
        machine = os.uname().machine
        tag = wheel_metadata.platform_tag(library)
        if needed <= wheel_metadata.PROMISED:
            glibc = max(int(version.split(".")[1]) for version in versions if version.startswith("GLIBC_2."))
            self.assertRegex(tag, rf"^manylinux_2_\d+_{machine}$")
            self.assertGreaterEqual(int(tag.split("_")[2]), glibc)
        else:
            self.assertEqual(tag, f"linux_{machine}")
        # One library more than is promised, and it is no manylinux wheel.
        self.assertEqual(wheel_metadata.platform_tag(library.replace(b"libm.so.6\0", b"libq.so.6\0")), f"linux_{machine}")

    def test_the_source_distribution_builds_the_same_wheel(self):
        name = wheel_backend.build_sdist(self.folder)
        with tarfile.open(self.folder / name) as archive:
            members = {member.name.split("/", 1)[1]: member for member in archive.getmembers()}
        for wanted in ("PKG-INFO", "pyproject.toml", "VERSION", "Package.swift", "Sources/FlashInferC/Call.swift",
                       "python/wheel_backend.py", "tools/install", "packaging/flashinfer.pc.in"):
            self.assertIn(wanted, members)
        self.assertTrue(members["tools/install"].mode & 0o100)
        with tempfile.TemporaryDirectory() as place:
            subprocess.run([sys.executable, "-m", "pip", "wheel", "--no-index", "--no-deps", "--no-build-isolation", "-w", place,
                            self.folder / name], check=True, capture_output=True)
            built = zipfile.ZipFile(pathlib.Path(place) / self.wheel.name)
            original = zipfile.ZipFile(self.wheel)
            self.assertEqual({name: built.getinfo(name).CRC for name in built.namelist()},
                             {name: original.getinfo(name).CRC for name in original.namelist()})


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
