#!/usr/bin/env python3
"""Widens a SmolLM2 of 576 to 768 columns, for the types whose blocks hold 256: a multiple of what they take.

usage: padded.py MODEL.gguf OUTPUT.gguf

Three query heads and one of keys and values are added, all zeros, so that the function stays: the mean of squares that RMSNorm
takes is three quarters of what it was, for which weights × √¾ and epsilon × ¾ make up. Weights become f32.
Needs the PyPI packages gguf and numpy.
"""
import sys
import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize

OLD, NEW, HEAD = 576, 768, 64

def padded(name, values):
    """The tensor as numpy has it, rows first, with zeros where the wider model has more."""
    shape = [NEW if length == OLD else NEW // 3 if length == OLD // 3 and ("attn_k" in name or "attn_v" in name)
             else length for length in values.shape]
    wide = np.zeros(shape, dtype=np.float32)
    wide[tuple(slice(0, length) for length in values.shape)] = values
    return wide * np.float32((OLD / NEW) ** 0.5) if "norm" in name else wide

def main(source, target):
    reader = GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["llama.embedding_length"] == OLD and fields["llama.attention.head_count"] == OLD // HEAD
    changed = {"llama.embedding_length": NEW, "llama.attention.head_count": NEW // HEAD,
               "llama.attention.head_count_kv": NEW // HEAD // 3, "general.file_type": 0,
               "llama.attention.layer_norm_rms_epsilon": fields["llama.attention.layer_norm_rms_epsilon"] * OLD / NEW}
    writer = GGUFWriter(target, "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.quantization_version"): continue
        kind = field.types[0]
        writer.add_key_value(name, changed.get(name, fields[name]), kind,
                             field.types[-1] if kind == GGUFValueType.ARRAY else None)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).reshape([int(n) for n in tensor.shape][::-1])
        writer.add_tensor(tensor.name, padded(tensor.name, values.astype(np.float32)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

if __name__ == "__main__":
    if len(sys.argv) != 3: sys.exit(__doc__)
    main(*sys.argv[1:])
