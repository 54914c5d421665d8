"""The weights of a GGUF file in Hugging Face's layout, which trainers and vLLM read."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlaif.backends.gguf import made_once, sha256_of
from rlaif.backends.gguf_model import Model, read
from rlaif.backends.hf_tokenizer import tokenizer, tokenizer_config
from rlaif.errors import ConfigError

if TYPE_CHECKING:
    import gguf
    import numpy as np
    import numpy.typing as npt

Dtype = Literal["float32", "float16", "bfloat16"]
DTYPES: dict[Dtype, tuple[str, int]] = {"float32": ("F32", 4), "float16": ("F16", 2), "bfloat16": ("BF16", 2)}
LAYOUT = 1  # counted up when the same file converts to something else, so that no old folder is taken for it

ONCE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
IN_EACH_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
ROPE_FACTORS = "rope_freqs.weight"
KV_HEADS = "llama.attention.head_count_kv"


def converted(weights: Path, spare_folder: Path, dtype: str = "float32") -> Path:
    """A folder with the same weights, made once in the cache folder, or in `spare_folder` if that is read-only.

    Raises ConfigError for a file or a dtype that cannot be converted, StoreError where there is no place.
    """
    chosen = next((known for known in DTYPES if known == dtype), None)
    if chosen is None:
        raise ConfigError(f"unknown dtype '{dtype}'; known: {', '.join(DTYPES)}")
    name = f"{weights.stem}-{sha256_of(weights)[:12]}-{dtype}-hf{LAYOUT}"
    return made_once(name, spare_folder, lambda target: convert(weights, target, chosen))


def convert(weights: Path, target: Path, dtype: Dtype = "float32") -> Path:
    """Writes the model at `target`, whole or not at all; one that is there already stays. Raises ConfigError.

    Needs memory for one tensor at a time.
    """
    model = read(weights)
    config, tokens, tokens_config = _config(model), tokenizer(model), tokenizer_config(model)
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    with _whole_folder(target) as folder:
        _write_json(folder / "config.json", {**config, "dtype": dtype})
        _write_json(folder / "generation_config.json", ids)
        _write_json(folder / "tokenizer.json", tokens)
        _write_json(folder / "tokenizer_config.json", tokens_config)
        _write_weights(folder / "model.safetensors", model, dtype)
    return target


def _config(model: Model) -> dict[str, Any]:
    meta, tensors = model.meta, model.tensors
    blocks = model.need("llama.block_count", int)
    names = _names(blocks)
    if missing := sorted(names.keys() - tensors.keys() - {"output.weight"}):
        raise model.refused(f"lacks the tensor {missing[0]}")
    if unknown := sorted(tensors.keys() - names.keys() - {ROPE_FACTORS}):
        raise model.refused(f"has the tensor {unknown[0]}, which a plain Llama has not")
    heads, width = model.need("llama.attention.head_count", int), model.need("llama.embedding_length", int)
    head_size = meta.get("llama.attention.key_length", width // heads)
    if meta.get("llama.rope.dimension_count", head_size) != head_size:
        raise model.refused("turns only a part of each head (llama.rope.dimension_count)")
    rope = _rope(model, head_size)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": model.need("llama.feed_forward_length", int),
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "num_key_value_heads": model.need(KV_HEADS, int) if KV_HEADS in meta else heads,
        "head_dim": head_size,
        "hidden_act": "silu",
        "rms_norm_eps": model.need("llama.attention.layer_norm_rms_epsilon", float),
        "max_position_embeddings": model.need("llama.context_length", int),
        "rope_theta": rope["rope_theta"],  # for readers older than the line below
        "rope_parameters": rope,
        "vocab_size": int(tensors["token_embd.weight"].shape[1]),
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": meta.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": _ends(meta),
        "pad_token_id": meta.get("tokenizer.ggml.padding_token_id"),
    }


def _names(blocks: int) -> dict[str, str]:
    """Each tensor's name there and here."""
    return ONCE | {
        f"blk.{block}.{there}.weight": f"model.layers.{block}.{here}.weight"
        for block in range(blocks)
        for there, here in IN_EACH_BLOCK.items()
    }


def _rope(model: Model, head_size: int) -> dict[str, float | str]:
    meta = model.meta
    base = float(meta.get("llama.rope.freq_base", 10_000.0))
    scaling = meta.get("llama.rope.scaling.type", "linear")
    factor = float(meta.get("llama.rope.scaling.factor") or meta.get("llama.rope.scale_linear") or 1.0)
    if scaling not in ("none", "linear"):
        raise model.refused(f"scales its positions by '{scaling}', known: linear")
    if ROPE_FACTORS in model.tensors:
        return _llama3_rope(model, base, head_size)
    if scaling == "linear" and factor != 1.0:
        return {"rope_type": "linear", "rope_theta": base, "factor": factor}
    return {"rope_type": "default", "rope_theta": base}


def _llama3_rope(model: Model, base: float, head_size: int) -> dict[str, float | str]:
    """Llama 3.1's scaling, of which the file keeps only the result: the divisor of each frequency.

    Every release so far has the same three numbers beside `factor`; a file with others is refused.
    """
    factors = [float(divisor) for divisor in model.tensors[ROPE_FACTORS].data]
    low, high, original, factor = 1.0, 4.0, 8192, max(factors)
    for pair, divisor in enumerate(factors):
        waves = original * base ** (-2 * pair / head_size) / (2 * math.pi)  # in the original context
        smooth = min(1.0, max(0.0, (waves - low) / (high - low)))
        if not math.isclose(divisor, 1 / ((1 - smooth) / factor + smooth), rel_tol=1e-3):
            raise model.refused(f"scales its positions ({ROPE_FACTORS}) as no known Llama does")
    return {
        "rope_type": "llama3",
        "rope_theta": base,
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }


def _ends(meta: Mapping[str, Any]) -> int | list[int] | None:
    """The end of the text, and the end of a turn where that is another token."""
    ids = [meta.get(f"tokenizer.ggml.{end}_token_id") for end in ("eos", "eot")]
    given = [end for end in dict.fromkeys(ids) if end is not None]
    return given if len(given) > 1 else next(iter(given), None)


def _write_weights(path: Path, model: Model, dtype: Dtype) -> None:
    """In the safetensors format: a header in JSON, then the numbers, one tensor at a time."""
    code, size = DTYPES[dtype]
    names = _names(model.need("llama.block_count", int))
    tensors = [model.tensors[there] for there in names if there in model.tensors]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        shape = [int(extent) for extent in reversed(tensor.shape)]
        start, end = end, end + math.prod(shape) * size
        header[names[tensor.name]] = {"dtype": code, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            file.write(_in_dtype(_values(tensor, model), dtype).tobytes())


def _values(tensor: gguf.ReaderTensor, model: Model) -> npt.NDArray[np.float32]:
    """The numbers in full, and the rows of q and k in the order that Hugging Face's rotation wants.

    It turns row i of a head's first half with row i of the second. llama.cpp turns neighbours, so its
    converter laid the two beside each other.
    """
    import gguf
    import numpy as np

    try:
        values = np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32)
    except NotImplementedError as error:
        raise model.refused(f"has {tensor.name} in {tensor.tensor_type.name}, which gguf cannot read") from error
    heads = model.need("llama.attention.head_count", int)
    if tensor.name.endswith("attn_k.weight"):
        heads = model.meta.get(KV_HEADS, heads)
    elif not tensor.name.endswith("attn_q.weight"):
        return values
    rows, columns = values.shape
    return values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _in_dtype(values: npt.NDArray[np.float32], dtype: Dtype) -> npt.NDArray[Any]:
    import numpy as np

    if dtype == "float32":
        return values.astype("<f4", copy=False)
    if dtype == "float16":
        return values.astype("<f2")
    # bfloat16, which numpy has not: the upper half of a float32, to the nearest, a tie to the even one.
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype("<u2")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _whole_folder(target: Path) -> Iterator[Path]:
    """A folder to write to, this process's own; it becomes `target` whole, or nothing does.

    Where another process was faster, its folder stays and ours is dropped.
    """
    partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        for path in partial.iterdir():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        try:
            partial.rename(target)
        except OSError:
            if not (target / "model.safetensors").is_file():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
