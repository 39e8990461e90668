#!/usr/bin/env python3
"""Makes floats of a model's quantised matrices, so that flashinfer-convert --quantize makes fewer bits of them.

usage: floats.py MODEL.gguf OUTPUT.gguf [--matrices REGEX]

  --matrices REGEX   only those in whose names this is found, such as token_embd or blk (default: all)
Needs the PyPI packages gguf and numpy.
"""
import argparse, re
import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("model"); p.add_argument("output"); p.add_argument("--matrices", default="")
a = p.parse_args()

reader = GGUFReader(a.model)
writer = GGUFWriter(a.output, reader.fields["general.architecture"].contents())
for name, field in reader.fields.items():
    if name.startswith("GGUF.") or name in ("general.architecture", "general.quantization_version"): continue
    kind = field.types[0]
    writer.add_key_value(name, field.contents(), kind, field.types[-1] if kind == GGUFValueType.ARRAY else None)
for tensor in reader.tensors:
    if len(tensor.shape) > 1 and re.search(a.matrices, tensor.name):
        values = dequantize(tensor.data, tensor.tensor_type).reshape([int(n) for n in tensor.shape][::-1])
        writer.add_tensor(tensor.name, values.astype(np.float32))
    else:
        writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()
