"""What the benchmark scripts share: fio, llama-bench, our bench, control groups, a cold cache."""
import contextlib, json, os, shutil, subprocess, sys, time

UNITS = {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "kb": 10**3, "mb": 10**6, "gb": 10**9}

def byte_count(text):
    for suffix, unit in UNITS.items():
        if text.lower().endswith(suffix): return int(float(text[:-len(suffix)]) * unit)
    return int(text)

def huge_pages():
    """fio's option for memory like ours, where enough huge pages are reserved."""
    fields = dict(line.split(":") for line in open("/proc/meminfo"))
    free = int(fields.get("HugePages_Free", "0")) * int(fields.get("Hugepagesize", "0 kB").split()[0])
    return ["--iomem=mmaphuge"] if free >= 72 << 10 else []

def need_fio():
    if not shutil.which("fio"): sys.exit("fio is needed: apt-get install fio")

def fio(path, block="1MiB", depth=32, random=False, seconds=2):
    """Bytes per second of direct reads."""
    out = subprocess.run(["fio", "--name=r", f"--filename={path}", f"--rw={'randread' if random else 'read'}",
                          f"--bs={block.removesuffix('iB')}", f"--iodepth={depth}", "--direct=1", "--ioengine=io_uring",
                          "--readonly", f"--runtime={seconds}", "--time_based", "--norandommap", "--randrepeat=0", "--fixedbufs=1",
                          "--output-format=json", *huge_pages()], capture_output=True, text=True, check=True).stdout
    return json.loads(out)["jobs"][0]["read"]["bw_bytes"]

def control_folder(controller):
    """Where groups of a controller are made: its own hierarchy (v1), or that of all (v2)."""
    base = "/sys/fs/cgroup"
    return f"{base}/{controller}" if os.path.isdir(f"{base}/{controller}") else base

@contextlib.contextmanager
def group_in(folder, limits):
    """A control group in `folder`; of `limits`, by their files' names in v2 and v1, those that it has are set."""
    number = 0
    while os.path.exists(group := f"{folder}/flashinfer-bench-{os.getpid()}-{number}"): number += 1
    os.mkdir(group)
    try:
        for file in filter(lambda file: os.path.exists(f"{group}/{file}"), limits):
            with open(f"{group}/{file}", "w") as out: out.write(str(limits[file]))
        yield group
    finally:
        for _ in range(50):
            with contextlib.suppress(OSError):
                os.rmdir(group)
                break
            time.sleep(0.1)

@contextlib.contextmanager
def control_group(limit):
    """A memory control group (v2 or v1) of `limit` bytes: a function that moves a process there, or None."""
    with contextlib.ExitStack() as stack:
        try: group = stack.enter_context(group_in(control_folder("memory"), {"memory.max": limit, "memory.limit_in_bytes": limit}))
        except OSError: group = None
        def enter():
            with open(group + "/cgroup.procs", "w") as out: out.write(str(os.getpid()))
        yield group and enter

def drop(*paths):
    """Drops files from the page cache, as root everything else too."""
    os.sync()
    for path in filter(None, paths):
        with open(path, "rb") as file: os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if os.geteuid() == 0:
        with contextlib.suppress(OSError), open("/proc/sys/vm/drop_caches", "w") as out: out.write("3")

def run(command, enter=None):
    return subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=enter).stdout

def ours(bench, *arguments, limit=None):
    """Figures of one of our benches by name, in a control group of `limit` bytes where that is given; measured once
    where nothing else is said, since the scripts repeat in turn with what they compare with."""
    once = ["--repeat", "1"] if arguments[0] in ("decode", "prefill", "load") and "--repeat" not in arguments else []
    command = [bench, *map(str, arguments), *once, "--json"]
    if limit is None: out = run(command)
    else:
        with control_group(limit) as enter: out = run(command, enter)
    return {f["name"]: f["value"] for f in json.loads(out)["figures"]}

LLAMA_HINT = """llama-bench is not on PATH: comparisons with llama.cpp are skipped. It comes with llama.cpp
(cmake -B build && cmake --build build --target llama-bench), whose sources are also in the PyPI package
llama-cpp-python (pip download --no-deps --no-binary :all: llama-cpp-python; vendor/llama.cpp);
--llama-bench PATH names it."""

def llama(llama_bench, gguf, *arguments, threads, limit=None, repetitions=1):
    """llama.cpp's tokens per second; in a control group it maps the file and does not repack, which is
    its best there. None where it cannot be had."""
    if not (gguf and llama_bench): return None
    options = []
    if limit is not None:
        help_text = subprocess.run([llama_bench, "--help"], capture_output=True, text=True)
        known = help_text.stdout + help_text.stderr
        options += ["--repack", "0"] if "--repack" in known else []
        options += ["--mmap", "1"] if "--mmap" in known else []
    command = [llama_bench, "-m", gguf, "-t", str(threads), "-r", str(repetitions), "-o", "json", *arguments, *options]
    if limit is None: return json.loads(run(command))[0]["avg_ts"]
    drop(gguf)
    with control_group(limit) as enter:
        if enter is None: return None
        try: return json.loads(run(command, enter))[0]["avg_ts"]
        except subprocess.CalledProcessError as error:
            print(f"llama-bench ended with {error.returncode} in {limit} bytes", file=sys.stderr)
            return None
