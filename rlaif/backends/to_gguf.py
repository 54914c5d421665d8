"""A Hugging Face folder of a Llama as one GGUF file, which llama.cpp answers from several times faster on a CPU."""

from __future__ import annotations

import math
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from rlaif.backends import ModelSpec
from rlaif.backends.gguf import _whole, made_once, sha256_of
from rlaif.backends.gguf_tokenizer import tokenizer
from rlaif.backends.hf_folder import WEIGHTS, Folder, base_of, opened
from rlaif.backends.to_hf import IN_EACH_BLOCK, ONCE, ROPE_FACTORS
from rlaif.backends.weights import model_folder
from rlaif.errors import ConfigError

if TYPE_CHECKING:
    import gguf
    import numpy as np
    import numpy.typing as npt

Precision = Literal["F32", "F16", "Q8_0"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
LAYOUT = 1  # counted up when the same folder converts to something else, so that no old file is taken for it
# All that is read beside the weights: what training left in the folder besides makes no other file.
READ = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
BLOCK = 32  # numbers that Q8_0 keeps under one scale


def file_of(folder: Path) -> Path:
    """Of a folder of weights, or of an adapter's with the base that it names; in 16 bits. Raises ConfigError."""
    return converted(*with_base(folder))


def with_base(folder: Path) -> tuple[Path, Path | None]:
    """The folder of weights, and the adapter's if `folder` is one. Raises ConfigError."""
    if (folder / "config.json").is_file() or not (folder / "adapter_config.json").is_file():
        return folder, None
    return model_folder(ModelSpec(provider="transformers", model=base_of(folder)), folder), folder


def converted(folder: Path, adapter: Path | None = None, precision: Precision = "F16") -> Path:
    """A file with the same weights, made once in the cache folder, or in `folder` if that is read-only.

    Raises ConfigError for what cannot be converted, StoreError where there is no place.
    """
    digest = blake2b(digest_size=6)
    for file in sorted([*folder.glob(WEIGHTS), *(folder / name for name in READ if (folder / name).is_file())]):
        digest.update(f"{file.name}\0{sha256_of(file)}\0".encode())
    for file in sorted(adapter.glob("adapter_*")) if adapter else ():
        digest.update(f"{file.name}\0{sha256_of(file)}\0".encode())
    name = f"llama-{digest.hexdigest()}-{precision}-gguf{LAYOUT}.gguf"
    return made_once(name, folder, lambda target: convert(folder, target, precision, adapter))


def convert(folder: Path, target: Path, precision: Precision = "F16", adapter: Path | None = None) -> Path:
    """Writes the model at `target`, whole or not at all. Raises ConfigError.

    Needs memory for one tensor at a time. The same weights give the same bytes. In 16 bits the greedy answers of
    SmolLM2 are those of transformers in 32, word for word; in 8 bits they are as fast and soon others.
    """
    try:
        import gguf
    except ImportError as error:
        raise ConfigError("GGUF files are written with gguf; run: pip install 'rlaif-kit[local]'") from error
    import numpy as np

    try:
        model = opened(folder, adapter)
        names, meta, rope = _names(model), _meta(model) | tokenizer(model), _rope_factors(model)
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # JSON, but not of a model
        whose = f"{folder} or the adapter {adapter}" if adapter else str(folder)
        raise ConfigError(f"a .json file in {whose} is damaged: {error!r}; train or fetch it again") from error
    kinds = {there: _kind(model.tensors[here].shape, precision) for there, here in names.items()}
    with _whole(target) as partial:
        writer = gguf.GGUFWriter(partial, "llama")
        writer.add_file_type(gguf.LlamaFileType["ALL_F32" if precision == "F32" else f"MOSTLY_{precision}"])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for key, value in meta.items():
            _add(writer, key, value)
        if rope is not None:
            writer.add_tensor_info(ROPE_FACTORS, rope.shape, rope.dtype, rope.nbytes)
        for there, here in names.items():
            shape, kind = model.tensors[here].shape, kinds[there]
            stored = gguf.quant_shape_to_byte_shape(shape, kind) if kind.name == "Q8_0" else shape
            numbers = np.dtype({"F32": np.float32, "F16": np.float16, "Q8_0": np.uint8}[kind.name])
            writer.add_tensor_info(there, stored, numbers, math.prod(stored) * numbers.itemsize, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for values, kind in _data(model, names, kinds, rope):
            writer.write_tensor_data(gguf.quantize(values, kind))
        writer.close()
    return target


def _names(model: Folder) -> dict[str, str]:
    """Each tensor's name there and here. Raises ConfigError for a model that is no plain Llama."""
    if model.config.get("model_type") != "llama":
        raise model.refused(f"is of the type '{model.config.get('model_type')}', and only 'llama' becomes a GGUF file")
    names = ONCE | {
        f"blk.{block}.{there}.weight": f"model.layers.{block}.{here}.weight"
        for block in range(model.config["num_hidden_layers"])
        for there, here in IN_EACH_BLOCK.items()
    }
    if model.config.get("tie_word_embeddings"):
        del names["output.weight"]
    if missing := sorted(set(names.values()) - model.tensors.keys()):
        raise model.refused(f"lacks the tensor {missing[0]}")
    if unknown := sorted(model.tensors.keys() - set(names.values()) - {"lm_head.weight"}):
        raise model.refused(f"has the tensor {unknown[0]}, which a plain Llama has not")
    return names


def _meta(model: Folder) -> dict[str, Any]:
    config = model.config
    if config.get("hidden_act", "silu") != "silu":
        raise model.refused(f"has hidden_act = {config['hidden_act']!r}, where a Llama has silu")
    heads, rope = config["num_attention_heads"], _rope(model)
    head_size = config.get("head_dim") or config["hidden_size"] // heads
    scaled = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": float(rope.get("factor", 1.0))}
    return {
        "general.type": "model",
        "llama.block_count": config["num_hidden_layers"],
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": config.get("num_key_value_heads") or heads,
        "llama.attention.key_length": head_size,
        "llama.attention.value_length": head_size,
        "llama.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "llama.rope.dimension_count": head_size,
        "llama.rope.freq_base": float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
        "llama.vocab_size": model.tensors[ONCE["token_embd.weight"]].shape[0],
        **(scaled if rope["rope_type"] == "linear" else {}),
    }


def _rope(model: Folder) -> dict[str, Any]:
    """Under either of the names that transformers has had for it."""
    given = model.config.get("rope_parameters") or model.config.get("rope_scaling") or {}
    rope = {**given, "rope_type": given.get("rope_type") or given.get("type") or "default"}
    if rope["rope_type"] not in ("default", "linear", "llama3"):
        raise model.refused(f"scales its positions by '{rope['rope_type']}', known: default, linear, llama3")
    return rope


def _rope_factors(model: Folder) -> npt.NDArray[np.float32] | None:
    """Llama 3.1's scaling as the divisor of each frequency, which is how llama.cpp has it."""
    import numpy as np

    rope, config = _rope(model), model.config
    if rope["rope_type"] != "llama3":
        return None
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    base = float(rope.get("rope_theta") or config["rope_theta"])
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    waves = rope["original_max_position_embeddings"] * base ** (-np.arange(0, size, 2) / size) / (2 * math.pi)
    smooth = np.clip((waves - low) / (high - low), 0.0, 1.0)
    return np.asarray(1 / ((1 - smooth) / factor + smooth), np.float32)


def _kind(shape: tuple[int, ...], precision: Precision) -> gguf.GGMLQuantizationType:
    """Norms stay in full, as llama.cpp wants them, and rows that Q8_0 cannot cut into blocks in 16 bits."""
    import gguf

    if len(shape) == 1:
        return gguf.GGMLQuantizationType.F32
    return gguf.GGMLQuantizationType["F16" if precision == "Q8_0" and shape[-1] % BLOCK else precision]


def _data(
    model: Folder,
    names: dict[str, str],
    kinds: dict[str, gguf.GGMLQuantizationType],
    rope: npt.NDArray[np.float32] | None,
) -> Iterator[tuple[npt.NDArray[np.float32], gguf.GGMLQuantizationType]]:
    """In the order in which they were announced."""
    import gguf

    if rope is not None:
        yield rope, gguf.GGMLQuantizationType.F32
    for there, here in names.items():
        yield _laid_out(model, there, model.values(here)), kinds[there]


def _laid_out(model: Folder, there: str, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The rows of q and k with those beside each other that llama.cpp turns together; to_hf says more."""
    heads = model.config["num_attention_heads"]
    if there.endswith("attn_k.weight"):
        heads = model.config.get("num_key_value_heads") or heads
    elif not there.endswith("attn_q.weight"):
        return values
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    import gguf

    if isinstance(value, list):
        writer.add_array(key, value)
        return
    # bool first: it is an int, too
    kind = next(kind for type_, kind in _KINDS if isinstance(value, type_))
    writer.add_key_value(key, value, gguf.GGUFValueType[kind])


_KINDS = ((bool, "BOOL"), (int, "UINT32"), (float, "FLOAT32"), (str, "STRING"))
