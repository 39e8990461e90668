#!/usr/bin/env python3
"""Brings all tensors of a file and prints one JSON object.

usage: load_client.py flashinfer FILE RAM BLOCK DEPTH     with our package
       load_client.py safetensors FILE                    with the package safetensors, a byte of each page touched
"""
import json, resource, sys, time

def ours(path, ram, block, depth):
    import flashinfer_ssd
    start = time.perf_counter()
    model = flashinfer_ssd.open(path, ram=int(ram), read=int(block), queue_depth=int(depth))
    opened, count, first = time.perf_counter(), 0, None
    for piece in model.stream():
        if first is None: first = time.perf_counter()
        count += piece.bytes.nbytes
    return count, time.perf_counter() - opened, (first or opened) - start

def theirs(path):
    import numpy as np
    from safetensors import safe_open
    start, count, first = time.perf_counter(), 0, None
    with safe_open(path, framework="np") as file:
        for name in file.keys():
            # get_tensor copies; that touches every page once, as any use would.
            array = file.get_tensor(name)
            if first is None: first = time.perf_counter()
            np.ascontiguousarray(array).reshape(-1).view(np.uint8)[::4096].max(initial=0)
            count += array.nbytes
    return count, time.perf_counter() - start, (first or start) - start

count, seconds, first = (ours if sys.argv[1] == "flashinfer" else theirs)(*sys.argv[2:])
print(json.dumps({"bytes": count, "seconds": seconds, "firstSeconds": first,
                  "peakBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
