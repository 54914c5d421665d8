"""A Llama in Hugging Face's layout becomes the GGUF file that it came from, and an adapter is added on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif.backends import ModelSpec, identity_of
from rlaif.backends.gguf import find_weights
from rlaif.backends.to_gguf import convert, converted, file_of
from rlaif.backends.to_hf import convert as to_hf
from rlaif.errors import ConfigError
from tests.backends.test_to_hf import INNER, META, TOKENS, WIDTH, as_gguf, llama3_factors, made, write

gguf = pytest.importorskip("gguf", reason="needs gguf: pip install 'rlaif-kit[local]'")
np = pytest.importorskip("numpy")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return to_hf(write(tmp_path / "tiny.gguf", as_gguf(made())), tmp_path / "hf")


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:  # Any: numpy's arrays, and metadata of many types
    reader = gguf.GGUFReader(path)
    tensors = {one.name: gguf.dequantize(one.data, one.tensor_type) for one in reader.tensors}
    return {field.name: field.contents() for field in reader.fields.values()}, tensors


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def safetensors(path: Path, tensors: dict[str, Any], kind: str = "F32") -> None:
    """By the format's published description."""
    header, data = {}, b""
    for name, values in tensors.items():
        raw = values.tobytes()
        header[name] = {"dtype": kind, "shape": values.shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def adapter(path: Path, **fields: object) -> tuple[Path, Any, Any]:
    """A LoRA of rank 2 on one matrix, and its two halves."""
    chance = np.random.default_rng(1)
    a, b = chance.standard_normal((2, WIDTH), np.float32), chance.standard_normal((INNER, 2), np.float32)
    path.mkdir()
    target = "base_model.model.model.layers.1.mlp.up_proj"
    safetensors(path / "adapter_model.safetensors", {f"{target}.lora_A.weight": a, f"{target}.lora_B.weight": b})
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "bias": "none", "base_model_name_or_path": "x"}
    (path / "adapter_config.json").write_text(json.dumps(config | fields))
    return path, a, b


@pytest.mark.parametrize("tied", [True, False])
def test_there_and_back_every_weight_is_the_same(tied: bool, tmp_path: Path) -> None:
    given = as_gguf(made(tied=tied))
    folder = to_hf(write(tmp_path / "tiny.gguf", given), tmp_path / "hf")
    _, back = read(convert(folder, tmp_path / "back.gguf", "F32"))
    assert back.keys() == given.keys()
    for name, values in given.items():
        np.testing.assert_array_equal(back[name], values, err_msg=name)


def test_there_and_back_the_tokenizer_and_the_settings_are_the_same(folder: Path, tmp_path: Path) -> None:
    meta, _ = read(convert(folder, tmp_path / "back.gguf"))
    for key, value in META.items():
        assert meta[key] == (pytest.approx(value) if isinstance(value, float) else value), key
    assert meta["tokenizer.ggml.add_bos_token"] is False


def test_the_same_weights_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    assert convert(folder, tmp_path / "a.gguf").read_bytes() == convert(folder, tmp_path / "b.gguf").read_bytes()


def test_eight_bits_round_matrices_and_leave_norms(folder: Path, tmp_path: Path) -> None:
    _, back = read(convert(folder, tmp_path / "back.gguf", "Q8_0"))
    q8_0 = gguf.GGMLQuantizationType.Q8_0
    for name, values in as_gguf(made()).items():
        expected = values if values.ndim == 1 else gguf.dequantize(gguf.quantize(values, q8_0), q8_0)
        np.testing.assert_array_equal(back[name], expected, err_msg=name)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_are_read_as_what_they_are(dtype: Any, tmp_path: Path) -> None:
    given = as_gguf(made())
    folder = to_hf(write(tmp_path / "tiny.gguf", given), tmp_path / "hf", dtype)
    _, back = read(convert(folder, tmp_path / "back.gguf", "F32"))
    for name, values in given.items():
        np.testing.assert_allclose(back[name], values, rtol=2**-8, err_msg=name)


def test_the_scaling_of_llama_3_comes_back_as_its_factors(tmp_path: Path) -> None:
    meta = META | {"llama.rope.freq_base": 500_000.0}
    tensors = as_gguf(made()) | {"rope_freqs.weight": llama3_factors(32.0, 8192)}
    folder = to_hf(write(tmp_path / "tiny.gguf", tensors, meta), tmp_path / "hf")
    _, back = read(convert(folder, tmp_path / "back.gguf", "F32"))
    np.testing.assert_allclose(back["rope_freqs.weight"], tensors["rope_freqs.weight"], rtol=1e-5)


def test_positions_scaled_by_one_factor_stay_so(tmp_path: Path) -> None:
    meta = META | {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    folder = to_hf(write(tmp_path / "tiny.gguf", as_gguf(made()), meta), tmp_path / "hf")
    back, _ = read(convert(folder, tmp_path / "back.gguf", "F32"))
    assert (back["llama.rope.scaling.type"], back["llama.rope.scaling.factor"]) == ("linear", 4.0)


def test_what_transformers_saves_apart_is_found(folder: Path, tmp_path: Path) -> None:
    """The template in a file of its own, rope without rope_theta beside it, and several ends."""
    config = json.loads((folder / "config.json").read_text())
    config.pop("rope_theta")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text("{{ its own }}")
    change(folder / "generation_config.json", eos_token_id=[0, 1])
    meta, _ = read(convert(folder, tmp_path / "back.gguf", "F32"))
    assert meta["tokenizer.chat_template"] == "{{ its own }}"
    assert meta["llama.rope.freq_base"] == 50_000.0
    assert (meta["tokenizer.ggml.eos_token_id"], meta["tokenizer.ggml.eot_token_id"]) == (0, 1)


def test_rows_that_no_token_has_are_kept(tmp_path: Path) -> None:
    folder = to_hf(write(tmp_path / "tiny.gguf", as_gguf(made())), tmp_path / "hf")
    tensors = made(vocabulary=len(TOKENS) + 3)
    safetensors(folder / "model.safetensors", tensors)
    meta, back = read(convert(folder, tmp_path / "back.gguf", "F32"))
    assert meta["tokenizer.ggml.tokens"][len(TOKENS) :] == ["[PAD13]", "[PAD14]", "[PAD15]"]
    assert back["token_embd.weight"].shape == (len(TOKENS) + 3, WIDTH)


def test_weights_in_several_files_are_one_model(folder: Path, tmp_path: Path) -> None:
    whole, _ = convert(folder, tmp_path / "whole.gguf", "F32"), (folder / "model.safetensors").unlink()
    tensors = list(made().items())
    for number, part in enumerate((tensors[:7], tensors[7:]), 1):
        safetensors(folder / f"model-0000{number}-of-00002.safetensors", dict(part))
    assert convert(folder, tmp_path / "parts.gguf", "F32").read_bytes() == whole.read_bytes()


def test_an_adapter_is_added_to_the_matrix_it_is_of(folder: Path, tmp_path: Path) -> None:
    path, a, b = adapter(tmp_path / "lora")
    _, back = read(convert(folder, tmp_path / "back.gguf", "F32", path))
    name = "model.layers.1.mlp.up_proj.weight"
    np.testing.assert_allclose(back["blk.1.ffn_up.weight"], made()[name] + 3 * b @ a, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(back["blk.0.ffn_up.weight"], made()["model.layers.0.mlp.up_proj.weight"])


def test_a_rank_stabilised_adapter_has_its_own_scale(folder: Path, tmp_path: Path) -> None:
    path, a, b = adapter(tmp_path / "lora", use_rslora=True)
    _, back = read(convert(folder, tmp_path / "back.gguf", "F32", path))
    expected = made()["model.layers.1.mlp.up_proj.weight"] + 6 / 2**0.5 * b @ a
    np.testing.assert_allclose(back["blk.1.ffn_up.weight"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"use_dora": True}, "use_dora = True; merge it"),
        ({"rank_pattern": {"up_proj": 4}}, "rank_pattern = .*; merge it"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save = .*; merge it"),
        ({"peft_type": "IA3"}, "peft_type = 'IA3'; merge it"),
    ],
)
def test_an_adapter_that_is_more_than_a_lora_is_refused(
    fields: dict[str, Any], message: str, folder: Path, tmp_path: Path
) -> None:
    path, *_ = adapter(tmp_path / "lora", **fields)
    with pytest.raises(ConfigError, match=message):
        convert(folder, tmp_path / "back.gguf", "F32", path)


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("config.json", {"model_type": "qwen3"}, "type 'qwen3', and only 'llama'.*transformers/MODEL"),
        ("config.json", {"num_hidden_layers": 3}, r"lacks the tensor model\.layers\.2\."),
        ("config.json", {"num_hidden_layers": 1}, r"has the tensor model\.layers\.1\."),
        ("config.json", {"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ("config.json", {"rope_parameters": {"rope_type": "yarn"}}, "by 'yarn', known: default"),
        ("tokenizer.json", {"normalizer": {"type": "NFC"}}, "has a tokenizer of the kind 'BPE'"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Whitespace"}}, "pre-tokenizer that is none of gpt-2, smollm"),
    ],
)
def test_what_cannot_be_converted_is_named_and_nothing_is_left(
    file: str, fields: dict[str, Any], message: str, folder: Path, tmp_path: Path
) -> None:
    change(folder / file, **fields)
    with pytest.raises(ConfigError, match=message):
        convert(folder, tmp_path / "out" / "back.gguf")
    assert not list((tmp_path / "out").glob("*"))


def test_a_damaged_file_is_named(folder: Path, tmp_path: Path) -> None:
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    for kept in (0, 6, 200, len(whole) - 10):
        file.write_bytes(whole[:kept])
        with pytest.raises(ConfigError, match=r"model\.safetensors is damaged"):
            convert(folder, tmp_path / "back.gguf")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "[]"),
        ("config.json", '{"model_type": "llama"}'),
        ("config.json", '{"model_type": "llama", "num_hidden_layers": "two"}'),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", '{"model": 3}'),
        ("tokenizer_config.json", "null"),
        ("lora/adapter_config.json", "{}"),
    ],
)
def test_rubbish_in_a_file_of_settings_is_one_clear_error(
    file: str, content: str, folder: Path, tmp_path: Path
) -> None:
    path, *_ = adapter(folder / "lora")
    (folder / file).write_text(content)
    with pytest.raises(ConfigError, match=rf"in {folder} or the adapter {path} is damaged: .*; train or fetch"):
        convert(folder, tmp_path / "out" / "back.gguf", adapter=path)
    assert not list((tmp_path / "out").glob("*"))


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no model: no \*\.safetensors"):
        convert(tmp_path, tmp_path / "back.gguf")


def test_a_file_is_made_once_for_the_same_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = converted(folder)
    made_at = first.stat().st_mtime_ns
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "training.json").write_text('{"seconds": 7}')
    assert converted(copy) == first
    assert first.stat().st_mtime_ns == made_at
    assert converted(folder, precision="Q8_0") != first
    change(copy / "tokenizer_config.json", chat_template="{{ another }}")
    assert converted(copy) != first
    assert converted(folder, adapter(tmp_path / "lora")[0]) != first


def test_an_adapters_folder_is_its_base_with_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path, *_ = adapter(tmp_path / "lora", base_model_name_or_path=str(folder))
    assert file_of(path) == converted(folder, path)
    assert file_of(folder) == converted(folder)
    (path / "training.json").write_text(json.dumps({"base": {"model": str(tmp_path / "gone")}}))
    with pytest.raises(ConfigError, match="gone"):
        file_of(path)
    change(path / "adapter_config.json", base_model_name_or_path=None)
    (path / "training.json").unlink()
    with pytest.raises(ConfigError, match="names no base model; add base_model_name_or_path"):
        file_of(path)


def test_a_folder_is_a_model_of_the_local_server(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert find_weights(str(folder)) == converted(folder)
    spec = ModelSpec(provider="local", model=str(folder))
    assert identity_of(spec).startswith("local:llama-")
