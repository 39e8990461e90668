#!/usr/bin/env python3
"""Makes a GGUF file of generated weights in the shape of a model that is larger than what can be had: its speed is real, its words
are not. Matrices are Q4_0, of gpt-oss Q8_0 and experts MXFP4, tables Q8_0; the same seed makes the same file.

usage: synth_shapes.py SHAPE TOKENIZER.gguf OUTPUT.gguf
  SHAPE      8b: Llama 3's 8B with a vocabulary of 49,152; 8b-128k: with one of 128,256; moe: Qwen3-MoE's, 24 layers of 128 experts;
             gpt-oss: gpt-oss-20B's; qwen3next: 12 of the 48 layers of Qwen3-Next-80B-A3B; mamba2: Mamba-2's 130M with a vocabulary of
             49,152
  TOKENIZER  a file of llama's architecture whose tokenizer it gets, such as SmolLM2's; tokens that it lacks are unused ones
flashinfer-convert makes the image of it (8b.bin, moe.bin). Needs the PyPI packages gguf and numpy.
"""
import sys
import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter

Q4_0, Q8_0, MXFP4, F32 = (getattr(GGMLQuantizationType, name) for name in ("Q4_0", "Q8_0", "MXFP4", "F32"))
LLAMA = dict(architecture="llama", layers=32, width=4096, heads=32, kv_heads=8, head=128, ffn=14336, rope=500000.0)
SHAPES = {
    "8b": LLAMA | dict(vocabulary=49152), "8b-128k": LLAMA | dict(vocabulary=128256),
    "moe": dict(architecture="qwen3moe", layers=24, width=2048, heads=32, kv_heads=4, head=128, ffn=6144, rope=1000000.0,
                vocabulary=49152, experts=128, used=8, expert_ffn=768),
    "gpt-oss": dict(architecture="gpt-oss", layers=24, width=2880, heads=64, kv_heads=8, head=64, ffn=2880, rope=150000.0,
                    vocabulary=201088, experts=32, used=4, expert_ffn=2880, window=128),
    "qwen3next": dict(architecture="qwen3next", layers=12, width=2048, heads=16, kv_heads=2, head=256, ffn=512, rope=10000000.0,
                      vocabulary=49152, experts=512, used=10, expert_ffn=512, rotated=64, inner=4096, state=128, groups=16, ranks=32, taps=4),
    "mamba2": dict(architecture="mamba2", layers=24, width=768, inner=1536, head=64, state=128, groups=1, taps=4, vocabulary=49152),
}

def mixers(s):
    """The tensors of Mamba-2, which has no others in its layers."""
    heads, channels = s["inner"] // s["head"], s["inner"] + 2 * s["groups"] * s["state"]
    for layer in range(s["layers"]):
        def own(name): return f"blk.{layer}.{name}"
        yield own("attn_norm.weight"), (s["width"],), F32
        yield own("ssm_in.weight"), (s["inner"] + channels + heads, s["width"]), Q4_0
        yield own("ssm_conv1d.weight"), (channels, s["taps"]), F32
        for name, shape in (("ssm_conv1d.bias", (channels,)), ("ssm_dt.bias", (heads,)), ("ssm_a", (heads, 1)), ("ssm_d", (heads, 1)),
                            ("ssm_norm.weight", (s["groups"], s["inner"] // s["groups"]))):
            yield own(name), shape, F32
        yield own("ssm_out.weight"), (s["width"], s["inner"]), Q4_0

def delta_rule(s, own):
    """The tensors of a gated delta rule, which stands where a layer does not attend."""
    channels = s["inner"] + 2 * s["groups"] * s["state"]
    yield own("attn_qkv"), (channels, s["width"]), Q4_0
    yield own("attn_gate"), (s["inner"], s["width"]), Q4_0
    yield own("ssm_ba"), (2 * s["ranks"], s["width"]), F32
    yield own("ssm_conv1d"), (channels, s["taps"]), F32
    for name in ("ssm_dt.bias", "ssm_a"): yield own(name).removesuffix(".weight"), (s["ranks"],), F32
    yield own("ssm_norm"), (s["inner"] // s["ranks"],), F32
    yield own("ssm_out"), (s["width"], s["inner"]), Q4_0

def attention(s, own, dense):
    """Where an output gate is in the matrix of queries, that has twice as many rows."""
    is_gated = s["architecture"] == "qwen3next"
    yield own("attn_q"), ((1 + is_gated) * s["heads"] * s["head"], s["width"]), dense
    for name in ("attn_k", "attn_v"): yield own(name), (s["kv_heads"] * s["head"], s["width"]), dense
    yield own("attn_output"), (s["width"], s["heads"] * s["head"]), dense
    if s["architecture"] in ("qwen3moe", "qwen3next"):
        for name in ("attn_q_norm", "attn_k_norm"): yield own(name), (s["head"],), F32

def tensors(s):
    """Name, shape (rows first) and type of each, in the order of the file."""
    is_oss, is_next = (s["architecture"] == name for name in ("gpt-oss", "qwen3next"))
    dense, routed = (Q8_0, MXFP4) if is_oss else (Q4_0, Q4_0)
    yield "token_embd.weight", (s["vocabulary"], s["width"]), Q8_0
    if s["architecture"] == "mamba2": yield from mixers(s)
    for layer in range(0 if s["architecture"] == "mamba2" else s["layers"]):
        def own(name): return f"blk.{layer}.{name}.weight"
        yield own("attn_norm"), (s["width"],), F32
        yield from delta_rule(s, own) if is_next and layer % 4 != 3 else attention(s, own, dense)
        yield own("post_attention_norm" if is_oss or is_next else "ffn_norm"), (s["width"],), F32
        if is_oss:
            yield own("attn_sinks"), (s["heads"],), F32
            for name, shape in (("attn_q", (s["heads"] * s["head"],)), ("attn_k", (s["kv_heads"] * s["head"],)),
                                ("attn_v", (s["kv_heads"] * s["head"],)), ("attn_output", (s["width"],)), ("ffn_gate_inp", (s["experts"],)),
                                ("ffn_gate_exps", (s["experts"], s["expert_ffn"])), ("ffn_up_exps", (s["experts"], s["expert_ffn"])),
                                ("ffn_down_exps", (s["experts"], s["width"]))):
                yield f"blk.{layer}.{name}.bias", shape, F32
        if "experts" in s:
            yield own("ffn_gate_inp"), (s["experts"], s["width"]), F32
            for name in ("ffn_gate_exps", "ffn_up_exps"): yield own(name), (s["experts"], s["expert_ffn"], s["width"]), routed
            yield own("ffn_down_exps"), (s["experts"], s["width"], s["expert_ffn"]), routed
            if is_next:
                yield own("ffn_gate_inp_shexp"), (s["width"],), F32
                for name in ("ffn_gate_shexp", "ffn_up_shexp"): yield own(name), (s["ffn"], s["width"]), Q4_0
                yield own("ffn_down_shexp"), (s["width"], s["ffn"]), Q4_0
        else:
            for name in ("ffn_gate", "ffn_up"): yield own(name), (s["ffn"], s["width"]), Q4_0
            yield own("ffn_down"), (s["width"], s["ffn"]), Q4_0
    yield "output_norm.weight", (s["width"],), F32
    yield "output.weight", (s["vocabulary"], s["width"]), Q8_0

def values(name, shape, kind, layers, random):
    """Weights without a bias, whose products keep the size of what they are multiplied with; of a quantised type as bytes. What is
    added to the residual stream is small, as in GPT-2 before training, or attention would make all tokens alike and choose few
    experts."""
    scale = 1 if name == "token_embd.weight" else shape[-1] ** -.5
    if any(part in name for part in ("attn_output", "ffn_down", "ssm_out")): scale *= (2 * layers) ** -.5
    if name.endswith(".bias") or "sinks" in name: return np.zeros(shape, np.float32)
    if "ssm_a" in name: return np.full(shape, -0.1, np.float32)
    if kind == F32:
        return np.ones(shape, np.float32) if len(shape) == 1 or "ssm_d" in name or "norm" in name else random.standard_normal(shape, np.float32) * np.float32(scale)
    if kind == MXFP4:
        # An exponent and 32 numbers of 4 bits, whose mean square is 8.56.
        blocks = random.integers(0, 256, (*shape[:-1], shape[-1] // 32, 17), np.uint8)
        blocks[..., 0] = 127 + round(np.log2(scale / 8.56 ** .5))
        return blocks.reshape(*shape[:-1], -1)
    quants, spread = (16, 4.3) if kind == Q4_0 else (32, 73.6)
    blocks = np.empty((*shape[:-1], shape[-1] // 32, 2 + quants), np.uint8)
    blocks[..., :2] = np.frombuffer(np.float16(scale / spread).tobytes(), np.uint8)
    if kind == Q4_0:
        blocks[..., 2:] = random.integers(1, 16, blocks[..., 2:].shape, np.uint8)
        blocks[..., 2:] |= random.integers(1, 16, blocks[..., 2:].shape, np.uint8) << 4
    else:
        blocks[..., 2:] = random.integers(-127, 128, blocks[..., 2:].shape, np.int8).view(np.uint8)
    return blocks.reshape(*shape[:-1], -1)

def add_tokenizer(writer, reader, count):
    for name, field in reader.fields.items():
        if not name.startswith("tokenizer."): continue
        content, kind = field.contents(), field.types[0]
        if kind == GGUFValueType.ARRAY and name in ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.scores"):
            if count < len(content): sys.exit(f"the tokenizer has {len(content)} tokens, more than {count}")
            unused = {"tokens": lambda i: f"<|unused_{i}|>", "token_type": lambda i: 5, "scores": lambda i: 0.0}[name.split(".")[-1]]
            content = list(content) + [unused(i) for i in range(len(content), count)]
        writer.add_key_value(name, content, kind, field.types[-1] if kind == GGUFValueType.ARRAY else None)

def main(shape, tokenizer, target):
    s = SHAPES[shape]
    writer = GGUFWriter(target, s["architecture"])
    writer.add_name(f"{shape} shape, generated weights")
    writer.add_context_length(32768); writer.add_block_count(s["layers"]); writer.add_embedding_length(s["width"])
    writer.add_layer_norm_rms_eps(1e-5); writer.add_vocab_size(s["vocabulary"])
    if "state" in s:
        writer.add_ssm_conv_kernel(s["taps"]); writer.add_ssm_inner_size(s["inner"]); writer.add_ssm_state_size(s["state"])
        writer.add_ssm_group_count(s["groups"]); writer.add_ssm_time_step_rank(s.get("ranks") or s["inner"] // s["head"])
    if "heads" not in s:
        writer.add_feed_forward_length(0); writer.add_head_count(0)
    else:
        writer.add_feed_forward_length(s["ffn"]); writer.add_head_count(s["heads"]); writer.add_head_count_kv(s["kv_heads"])
        writer.add_key_length(s["head"]); writer.add_value_length(s["head"]); writer.add_rope_freq_base(s["rope"])
    if "experts" in s:
        writer.add_expert_count(s["experts"]); writer.add_expert_used_count(s["used"])
        writer.add_expert_feed_forward_length(s["expert_ffn"])
    if "rotated" in s:
        writer.add_expert_shared_feed_forward_length(s["ffn"]); writer.add_rope_dimension_count(s["rotated"])
    elif "experts" not in s and "heads" in s:
        writer.add_rope_dimension_count(s["head"])
    if "window" in s: writer.add_sliding_window(s["window"])
    add_tokenizer(writer, GGUFReader(tokenizer), s["vocabulary"])
    def bytes_of(shape, kind): return int(np.prod(shape)) * {F32: 128, Q4_0: 18, Q8_0: 34, MXFP4: 17}[kind] // 32
    for name, shape, kind in tensors(s):
        writer.add_tensor_info(name, shape, np.dtype(np.float32), bytes_of(shape, kind), None if kind == F32 else kind)
    writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_ti_data_to_file()
    random = np.random.default_rng(1)
    for name, shape, kind in tensors(s): writer.write_tensor_data(values(name, shape, kind, s["layers"], random))
    writer.close()

if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in SHAPES: sys.exit(__doc__)
    main(*sys.argv[1:])
