"""The loader in Swift, C and Python against what programs use today, in turn and cold; `load.py --clients` runs it."""
import json, os, random, statistics, struct, subprocess, sys
import measure
from measure import control_group, drop, fio
from record import record

BLOCK, DEPTH, RAM = 1 << 20, 32, 256 << 20
FOLDER = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(FOLDER)

def write_safetensors(path, sizes):
    """A file of U8 tensors of these sizes; kept from one run to the next."""
    header, end = {}, 0
    for index, size in enumerate(sizes):
        header[f"layers.{index}.weight"] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    if os.path.exists(path) and os.path.getsize(path) == 8 + len(text) + end: return path
    block = os.urandom(1 << 24)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        while end > 0:
            out.write(block[:min(end, len(block))])
            end -= len(block)
    return path

def files(folder):
    """The whole file of 4 GiB in tensors of 2 to 64 MiB, one for random access, one of very many tensors."""
    draw = random.Random(1)
    large, sizes = 4 << 30, []
    while sum(sizes) < large: sizes.append(draw.randrange(2 << 20, 64 << 20, 4096))
    parts = [draw.randrange(32 << 10, 1 << 20, 4096) for _ in range(6000)]
    return (write_safetensors(f"{folder}/large.safetensors", sizes),
            write_safetensors(f"{folder}/random.safetensors", parts),
            write_safetensors(f"{folder}/many.safetensors", [256] * 100_000))

def build_c_client(folder, name="load_client"):
    prefix = f"{ROOT}/.build/embed"
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "flashinfer"], check=True, capture_output=True, text=True,
                           env={**os.environ, "PKG_CONFIG_PATH": f"{prefix}/lib/pkgconfig"}).stdout.split()
    out = f"{folder}/{name}"
    subprocess.run(["clang", "-std=c11", "-O2", "-o", out, f"{FOLDER}/{name}.c", *flags, f"-Wl,-rpath,{prefix}/lib"], check=True)
    return out

class Clients:
    """Each brings all of a file once, cold, in a control group where that is given: bytes a second and peak memory."""

    def __init__(self, bench, c_client, python):
        self.bench, self.c_client, self.python = bench, c_client, python

    def bench_figures(self, path, enter, *arguments):
        out = measure.run([self.bench, "load", path, "--json", *map(str, arguments)], enter)
        return {f["name"]: f["value"] for f in json.loads(out)["figures"]}

    def run(self, name, path, enter=None):
        drop(path)
        if name == "fio": return fio(path, "1MiB", DEPTH), 0
        if name in ("swift", "mmap", "read"):
            way = ["loader", "--ram", RAM] if name == "swift" else [name]
            f = self.bench_figures(path, enter, "--block-size", BLOCK, "--queue-depth", DEPTH, "--through", *way)
            return f["loadBytesPerSecond"], f["peakResidentBytes"]
        if name == "c": command = [self.c_client, path, RAM, BLOCK, DEPTH]
        elif name == "python": command = [self.python, f"{FOLDER}/load_client.py", "flashinfer", path, RAM, BLOCK, DEPTH]
        else: command = [self.python, f"{FOLDER}/load_client.py", "safetensors", path]
        out = json.loads(measure.run(list(map(str, command)), enter))
        return out["bytes"] / out["seconds"], out["peakBytes"]

def fio_random(path, seconds):
    """Direct random reads of the sizes that the tensors have."""
    out = subprocess.run(["fio", "--name=r", f"--filename={path}", "--rw=randread", "--bsrange=32k-1024k", "--blockalign=4k",
                          f"--iodepth={DEPTH}", "--direct=1", "--ioengine=io_uring", "--readonly", f"--runtime={seconds}",
                          "--time_based", "--norandommap", "--randrepeat=0", "--output-format=json"], capture_output=True, text=True, check=True).stdout
    return json.loads(out)["jobs"][0]["read"]["bw_bytes"]

def main(folder, rounds, seconds, bench, python, is_recorded):
    os.makedirs(folder, exist_ok=True)
    large, scattered, many = files(folder)
    clients = Clients(bench, build_c_client(folder), python)
    command = "benchmarks/load.py --clients"
    failed = []

    def state(figure, values, unit, limit, holds, note):
        value = statistics.median(values)
        print(f"{figure}: {value:.4g} {unit} (limit {limit}){'' if holds else '  MISSED'}  {note}")
        if not holds: failed.append(figure)
        if is_recorded: record(command, figure, value, unit, limit, "cold", note, values=values)

    ratios, peaks = {name: [] for name in ("swift", "c", "python", "mmap", "read", "safetensors")}, {}
    for _ in range(rounds):
        for name in ratios:
            before = clients.run("fio", large)[0]
            speed, peak = clients.run(name, large)
            ratios[name].append(speed / ((before + clients.run("fio", large)[0]) / 2))
            peaks[name] = max(peak, peaks.get(name, 0))
    floors = {"swift": 0.97, "c": 0.97, "python": 0.95}
    for name, values in ratios.items():
        floor = floors.get(name)
        ratio = statistics.median(values)
        state(f"{name} / fio", values, "", floor or "", floor is None or ratio >= floor, "4 GiB, 1 MiB x 32")
        if floor: state(f"{name} peak / budget", [peaks[name] / RAM], "", 1, peaks[name] <= RAM, "256 MiB")

    limit = os.path.getsize(large) // 4
    ratios = {name: [] for name in ("swift", "c", "python")}
    for _ in range(rounds):
        with control_group(limit) as enter:
            if enter is None:
                print("no memory control group here: nothing is compared in a quarter of the file", file=sys.stderr)
                break
            peer = clients.run("safetensors", large, enter)[0]
            for name in ratios: ratios[name].append(clients.run(name, large, enter)[0] / peer)
    for name, values in ratios.items():
        if values: state(f"{name} / safetensors", values, "", 1.5, statistics.median(values) >= 1.5, "in a quarter of the file")

    values = []
    for _ in range(rounds):
        drop(scattered)
        before = fio_random(scattered, seconds)
        f = clients.bench_figures(scattered, None, "--through", "loader", "--random", "--tensors", 2000, "--queue-depth", DEPTH, "--ram", RAM)
        values.append(f["loadBytesPerSecond"] / ((before + fio_random(scattered, seconds)) / 2))
    state("random / fio", values, "", 0.9, statistics.median(values) >= 0.9, "2000 tensors of 32 KiB to 1 MiB")

    values = []
    for _ in range(rounds):
        drop(many)
        values.append(clients.bench_figures(many, None, "--through", "loader")["timeToFirstTensorSeconds"])
    state("open to first tensor", values, "s", 0.5, statistics.median(values) <= 0.5, "100,000 tensors")
    return 1 if failed else 0
