"""A made-up Llama, laid out as llama.cpp lays it out, comes back as Hugging Face has it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rlaif.backends.to_hf import _whole_folder, convert, converted
from rlaif.errors import ConfigError, StoreError

gguf = pytest.importorskip("gguf", reason="needs gguf: pip install 'rlaif-kit[local]'")
np = pytest.importorskip("numpy")

WIDTH, HEADS, KV_HEADS, INNER, BLOCKS = 64, 8, 2, 96, 2
HEAD = WIDTH // HEADS
TOKENS = ["<|end|>", "<|turn|>", "<|pad|>", "h", "e", "l", "o", "Ġ", "he", "ll", "hell", "<tool>", "hello"]
TYPES = [3, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 4, 1]
META: dict[str, Any] = {
    "llama.block_count": BLOCKS,
    "llama.context_length": 128,
    "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": INNER,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.attention.layer_norm_rms_epsilon": 1e-6,
    "llama.rope.freq_base": 50_000.0,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": TYPES,
    "tokenizer.ggml.merges": ["h e", "l l", "he ll", "hell o"],
    "tokenizer.ggml.bos_token_id": 0,
    "tokenizer.ggml.eos_token_id": 0,
    "tokenizer.ggml.padding_token_id": 2,
    "tokenizer.chat_template": "{{ messages[0].content }}",
}
SHAPES = {
    "input_layernorm": (WIDTH,),
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (KV_HEADS * HEAD, WIDTH),
    "self_attn.v_proj": (KV_HEADS * HEAD, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "post_attention_layernorm": (WIDTH,),
    "mlp.gate_proj": (INNER, WIDTH),
    "mlp.up_proj": (INNER, WIDTH),
    "mlp.down_proj": (WIDTH, INNER),
}
IN_GGUF = dict(
    zip(
        SHAPES,
        ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"],
        strict=True,
    )
)


def made(vocabulary: int = len(TOKENS), tied: bool = True) -> dict[str, Any]:  # Any: numpy's arrays
    """Random weights under Hugging Face's names."""
    chance = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, WIDTH),
        "model.norm.weight": (WIDTH,),
        **({} if tied else {"lm_head.weight": (vocabulary, WIDTH)}),
    }
    for block in range(BLOCKS):
        shapes |= {f"model.layers.{block}.{name}.weight": shape for name, shape in SHAPES.items()}
    return {name: chance.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def as_gguf(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The same under llama.cpp's names and in its order, by the rule of its own converter."""
    once = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    there: dict[str, Any] = {}
    for name, values in weights.items():
        if name in once:
            there[once[name]] = values
            continue
        block, _, part = name.removeprefix("model.layers.").removesuffix(".weight").partition(".")
        heads = {"self_attn.q_proj": HEADS, "self_attn.k_proj": KV_HEADS}.get(part)
        if heads:
            rows, columns = values.shape
            values = values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
        there[f"blk.{block}.{IN_GGUF[part]}.weight"] = values
    return there


def write(
    path: Path,
    tensors: Mapping[str, Any],
    meta: Mapping[str, Any] = META,
    architecture: str = "llama",
    kinds: Mapping[str, gguf.GGMLQuantizationType] | None = None,
) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    kind_of = {bool: "BOOL", int: "UINT32", float: "FLOAT32", str: "STRING"}
    for key, value in meta.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            writer.add_key_value(key, value, gguf.GGUFValueType[kind_of[type(value)]])
    for name, values in tensors.items():
        kind = (kinds or {}).get(name)
        writer.add_tensor(name, values if kind is None else gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def read(folder: Path) -> dict[str, Any]:
    """model.safetensors by its published format."""
    content = (folder / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    assert header.pop("__metadata__") == {"format": "pt"}
    assert start % 8 == 0
    assert start + max(about["data_offsets"][1] for about in header.values()) == len(content)
    kinds = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
    return {
        name: np.frombuffer(
            content[start + about["data_offsets"][0] : start + about["data_offsets"][1]], kinds[about["dtype"]]
        ).reshape(about["shape"])
        for name, about in header.items()
    }


def config_of(folder: Path, file: str = "config.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / file).read_text(encoding="utf-8"))
    return content


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write(tmp_path / "tiny.gguf", as_gguf(made()))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rlaif"


@pytest.mark.parametrize("tied", [True, False])
def test_every_weight_comes_back_exactly(tied: bool, tmp_path: Path) -> None:
    given = made(tied=tied)
    folder = convert(write(tmp_path / "tiny.gguf", as_gguf(given)), tmp_path / "hf")
    back = read(folder)
    assert back.keys() == given.keys()
    for name, values in given.items():
        np.testing.assert_array_equal(back[name], values, err_msg=name)
    assert config_of(folder)["tie_word_embeddings"] is tied


def test_a_half_precision_rounds_each_weight_to_the_nearest(weights: Path, tmp_path: Path) -> None:
    half, brain = read(convert(weights, tmp_path / "h", "float16")), read(convert(weights, tmp_path / "b", "bfloat16"))
    for name, values in made().items():
        np.testing.assert_array_equal(half[name], values.astype(np.float16), err_msg=name)
        rounded = gguf.quantize(values, gguf.GGMLQuantizationType.BF16).view(np.uint16)
        np.testing.assert_array_equal(brain[name], rounded, err_msg=name)
    assert config_of(tmp_path / "h")["dtype"] == "float16"


def test_quantised_weights_come_back_as_what_they_stand_for(tmp_path: Path) -> None:
    q8_0, given = gguf.GGMLQuantizationType.Q8_0, made()
    there = as_gguf(given)
    kinds = {name: q8_0 for name, values in there.items() if values.ndim == 2}
    back = read(convert(write(tmp_path / "tiny.gguf", there, kinds=kinds), tmp_path / "hf"))
    stands_for = {
        name: gguf.dequantize(gguf.quantize(values, q8_0), q8_0) for name, values in given.items() if values.ndim == 2
    }
    for name, values in stands_for.items():  # whole rows move, so that quantising first or last is the same
        np.testing.assert_array_equal(back[name], values, err_msg=name)


def test_the_configuration_is_the_files_own(weights: Path, tmp_path: Path) -> None:
    config = config_of(convert(weights, tmp_path / "hf"))
    expected = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": BLOCKS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD,
        "max_position_embeddings": 128,
        "rope_theta": 50_000.0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 50_000.0},
        "vocab_size": len(TOKENS),
        "eos_token_id": 0,
        "pad_token_id": 2,
        "dtype": "float32",
    }
    assert {key: config[key] for key in expected} == expected
    assert config["rms_norm_eps"] == pytest.approx(1e-6)
    assert config_of(tmp_path / "hf", "generation_config.json") == {
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 2,
    }


def test_the_end_of_a_turn_ends_an_answer_too(tmp_path: Path) -> None:
    file = write(tmp_path / "tiny.gguf", as_gguf(made()), META | {"tokenizer.ggml.eot_token_id": 1})
    assert config_of(convert(file, tmp_path / "hf"), "generation_config.json")["eos_token_id"] == [0, 1]


def test_the_tokenizer_is_the_files_own(weights: Path, tmp_path: Path) -> None:
    folder = convert(weights, tmp_path / "hf")
    tokenizer = config_of(folder, "tokenizer.json")
    assert tokenizer["model"]["vocab"] == {token: number for number, token in enumerate(TOKENS)}
    assert tokenizer["model"]["merges"] == [["h", "e"], ["l", "l"], ["he", "ll"], ["hell", "o"]]
    added = [(token["id"], token["content"], token["special"]) for token in tokenizer["added_tokens"]]
    assert added == [(0, "<|end|>", True), (1, "<|turn|>", True), (2, "<|pad|>", True), (11, "<tool>", False)]
    config = config_of(folder, "tokenizer_config.json")
    assert config["chat_template"] == "{{ messages[0].content }}"
    assert (config["bos_token"], config["eos_token"], config["pad_token"]) == ("<|end|>", "<|end|>", "<|pad|>")
    assert "unk_token" not in config


def test_a_text_begins_with_the_token_that_the_file_asks_for(tmp_path: Path) -> None:
    file = write(tmp_path / "tiny.gguf", as_gguf(made()), META | {"tokenizer.ggml.add_bos_token": True})
    processor = config_of(convert(file, tmp_path / "hf"), "tokenizer.json")["post_processor"]
    assert [next(iter(part)) for part in processor["single"]] == ["SpecialToken", "Sequence"]
    assert processor["special_tokens"] == {"<|end|>": {"id": "<|end|>", "ids": [0], "tokens": ["<|end|>"]}}


def llama3_factors(factor: float, original: float) -> Any:  # Any: numpy's array
    """By the published formula, for our heads and a base that puts a frequency between the two bounds."""
    factors = []
    for frequency in 500_000.0 ** -(np.arange(0, HEAD, 2) / HEAD):
        length = 2 * math.pi / frequency
        if length < original / 4:
            factors.append(1.0)
        elif length > original:
            factors.append(factor)
        else:
            smooth = (original / length - 1) / 3
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, np.float32)


def test_the_scaling_of_llama_3_is_found_in_its_result(tmp_path: Path) -> None:
    meta, tensors = META | {"llama.rope.freq_base": 500_000.0}, as_gguf(made())
    file = write(tmp_path / "tiny.gguf", {**tensors, "rope_freqs.weight": llama3_factors(32.0, 8192)}, meta)
    rope = config_of(convert(file, tmp_path / "hf"))["rope_parameters"]
    assert rope == {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    file = write(tmp_path / "tiny.gguf", {**tensors, "rope_freqs.weight": llama3_factors(32.0, 4096)}, meta)
    with pytest.raises(ConfigError, match=r"rope_freqs\.weight.* as no known Llama"):
        convert(file, tmp_path / "other")


def test_positions_scaled_by_one_factor_stay_so(tmp_path: Path) -> None:
    meta = META | {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    rope = config_of(convert(write(tmp_path / "tiny.gguf", as_gguf(made()), meta), tmp_path / "hf"))["rope_parameters"]
    assert rope == {"rope_type": "linear", "rope_theta": 50_000.0, "factor": 4.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "qwen2"}, r"the architecture 'qwen2'.* Hugging Face folder or name"),
        ({"meta": {"tokenizer.ggml.model": "llama"}}, r"tokenizer of the kind 'llama'"),
        ({"meta": {"tokenizer.ggml.pre": "qwen2"}}, r"pre-tokenizer 'qwen2', known: gpt-2, smollm, llama-bpe"),
        ({"meta": {"tokenizer.ggml.merges": "none"}}, r"tokenizer.ggml.merges = 'none'"),
        ({"meta": {"llama.attention.head_count": [8, 4]}}, r"llama.attention.head_count = \[8, 4\]"),
        ({"meta": {"llama.rope.dimension_count": 4}}, r"part of each head"),
        ({"meta": {"llama.rope.scaling.type": "yarn"}}, r"by 'yarn', known: linear"),
        ({"tensors": {"blk.0.attn_q.bias": [0.0]}}, r"has the tensor blk.0.attn_q.bias"),
        ({"without": "blk.1.ffn_up.weight"}, r"lacks the tensor blk.1.ffn_up.weight"),
    ],
)
def test_what_cannot_be_converted_is_named_with_the_way_out(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    tensors = as_gguf(made()) | {name: np.array(v, np.float32) for name, v in change.get("tensors", {}).items()}
    tensors.pop(change.get("without"), None)
    file = write(tmp_path / "tiny.gguf", tensors, META | change.get("meta", {}), change.get("architecture", "llama"))
    with pytest.raises(ConfigError, match=message) as caught:
        convert(file, tmp_path / "hf")
    assert str(file) in str(caught.value)
    assert "Hugging Face folder or name" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]


def test_a_damaged_file_is_named(weights: Path, tmp_path: Path) -> None:
    whole = weights.read_bytes()
    for kept in (4, 20, 600, len(whole) // 2, len(whole) - 100):
        weights.write_bytes(whole[:kept])
        with pytest.raises(ConfigError, match=r"tiny\.gguf is damaged"):
            convert(weights, tmp_path / "hf")


def test_without_gguf_it_says_what_to_install(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ConfigError, match=r"pip install 'rlaif-kit\[local\]'"):
        convert(weights, tmp_path / "hf")


def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    tensors = as_gguf(made())
    tensors["blk.1.ffn_up.weight"] = tensors["blk.1.ffn_up.weight"].astype(np.int32)
    file = write(tmp_path / "tiny.gguf", tensors)
    with pytest.raises(ConfigError, match=r"blk\.1\.ffn_up\.weight in I32"):
        convert(file, tmp_path / "out" / "hf")
    assert list((tmp_path / "out").iterdir()) == []


def test_of_two_at_once_the_first_stays_and_both_end_well(tmp_path: Path) -> None:
    target = tmp_path / "hf"
    with _whole_folder(target) as slow:
        (slow / "model.safetensors").write_text("slow")
        with _whole_folder(target) as fast:
            (fast / "model.safetensors").write_text("fast")
        assert target.is_dir()
    assert (target / "model.safetensors").read_text() == "fast"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_of_something_else_is_left_alone(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "notes.txt").write_text("mine")
    with pytest.raises(OSError, match="hf"):
        convert(weights, tmp_path / "hf")
    assert {path.name for path in tmp_path.rglob("*")} == {"tiny.gguf", "hf", "notes.txt"}


def test_the_second_call_converts_nothing(weights: Path, cache: Path, tmp_path: Path) -> None:
    first = converted(weights, tmp_path / "spare")
    before = {path: path.stat().st_ino for path in first.iterdir()}
    assert converted(weights, tmp_path / "spare") == first
    assert {path: path.stat().st_ino for path in first.iterdir()} == before
    assert first.parent == cache
    assert not (tmp_path / "spare").exists()


def test_each_dtype_has_its_folder(weights: Path, cache: Path, tmp_path: Path) -> None:
    folders = {converted(weights, tmp_path / "spare", dtype) for dtype in ("float32", "float16", "bfloat16")}
    assert len(folders) == 3
    with pytest.raises(ConfigError, match="unknown dtype 'int8'; known: float32, float16, bfloat16"):
        converted(weights, tmp_path / "spare", "int8")


def test_where_the_cache_cannot_be_written_the_spare_folder_is(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = converted(weights, tmp_path / "spare")
    assert folder.parent == tmp_path / "spare"
    assert converted(weights, tmp_path / "spare") == folder
    with pytest.raises(StoreError, match="no place for tiny-"):
        converted(weights, tmp_path / "file" / "spare")
