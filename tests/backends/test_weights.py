"""What tells one set of weights from another, and what is fetched of a hub model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlaif.backends import ModelSpec, identity_of
from rlaif.backends.weights import adapter_folder, model_folder
from rlaif.errors import ConfigError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
Written = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "model", *FILES, *(f"ckpt-500/{name}" for name in ("model.safetensors", "config.json")))


def named(folder: Path | str, provider: str = "vllm", **more: Any) -> str:  # Any: ModelSpec's own fields
    return identity_of(ModelSpec.model_validate({"provider": provider, "model": str(folder), **more}))


def test_a_renamed_or_copied_folder_is_the_same_model(model: Path, tmp_path: Path) -> None:
    before = named(model)
    assert before.startswith("vllm:")
    assert "model" not in before
    assert named(shutil.copytree(model, tmp_path / "copy")) == before
    assert named(model.rename(tmp_path / "other")) == before


def test_a_renamed_adapter_is_the_same_adapter(model: Path, tmp_path: Path) -> None:
    adapter = write(tmp_path / "adapter", "adapter_config.json", "adapter_model.safetensors")
    before = named(model, lora=str(adapter))
    assert before.startswith(f"{named(model)}+")
    assert named(model, lora=str(adapter.rename(tmp_path / "a"))) == before
    (tmp_path / "a" / "adapter_config.json").write_text("another rank")
    assert named(model, lora=str(tmp_path / "a")) != before


@pytest.mark.parametrize(
    "file",
    [
        *FILES,
        *("pytorch_model.bin", "generation_config.json", "special_tokens_map.json", "chat_template.json"),
        *("chat_template.jinja", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "modeling_own.py"),
    ],
)
def test_every_file_that_answers_depend_on_is_a_part_of_the_identity(file: str, model: Path) -> None:
    before = named(model)
    (model / file).write_text("something else")
    assert named(model) != before


@pytest.mark.parametrize("file", ["README.md", "optimizer.pt", "ckpt-500/model.safetensors", "onnx/config.json"])
def test_what_is_not_loaded_changes_nothing(file: str, model: Path) -> None:
    before = named(model)
    write(model, file)
    (model / file).write_text("something else")
    assert named(model) == before


def test_a_subfolder_is_the_model_in_it_with_the_tokenizer_around_it(model: Path) -> None:
    def subfolder() -> str:
        return named(model, "transformers", engine={"subfolder": "ckpt-500"})

    first = subfolder()
    assert first != named(model, "transformers")
    (model / "model.safetensors").write_text("the weights that are not loaded")
    assert subfolder() == first
    (model / "tokenizer.json").write_text("another tokenizer")
    second = subfolder()
    assert second != first
    (model / "ckpt-500" / "model.safetensors").write_text("other weights")
    assert subfolder() not in (first, second)


def test_each_setting_of_the_engine_that_changes_answers_gives_an_identity_of_its_own(model: Path) -> None:
    engines: list[dict[str, Any]] = [
        {},
        {"load_in_4bit": True},
        {"quantization": "fp8"},
        {"hf_overrides": {"rope_theta": 1, "a": 2}},
        {"hf_overrides": {"rope_theta": 2, "a": 2}},
        {"tokenizer": "other"},
        {"dtype": "float16"},
        {"subfolder": "ckpt-500"},
        {"some_later_setting": 1},
    ]
    identities = [named(model, engine=engine) for engine in engines]
    assert len(set(identities)) == len(engines)
    assert all(one.startswith(f"{identities[0]}+engine:") for one in identities[1:-2])
    assert named(model, engine={"hf_overrides": {"a": 2, "rope_theta": 1}}) == identities[3]


def test_where_a_model_runs_and_how_fast_is_no_part_of_its_identity(model: Path) -> None:
    placed = {"tensor_parallel_size": 2, "gpu_memory_utilization": 0.8, "max_model_len": 99, "device_map": {"": 0}}
    assert named(model, engine=placed) == named(model)
    assert named(model, engine=placed | {"dtype": "auto"}) == named(model, engine={"dtype": "auto"})


@pytest.mark.parametrize("file", ["requirements.txt", "README.md", "tokenizer.json"])
def test_a_folder_without_a_model_is_an_error(file: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "empty", file)
    with pytest.raises(ConfigError, match="empty holds no model"):
        named(folder)
    with pytest.raises(ConfigError, match="empty/ckpt-500 holds no model"):
        named(folder, "transformers", engine={"subfolder": "ckpt-500"})


# The hub


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    """Files in the hub's cache as a download leaves them, and the list of all files there are."""
    constants = pytest.importorskip("huggingface_hub.constants")
    tree = pytest.importorskip("huggingface_hub._tree_cache")  # of older ones what they need can't be seen
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def written(name: str, *files: str, missing: tuple[str, ...] = (), listed: tuple[str, ...] = ()) -> Path:
        folder = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(COMMIT)
        write(folder / ".no_exist" / COMMIT, *missing)
        entries = {file: tree.TreeCacheEntry(size=1, blob_id="b") for file in (*files, *listed)}
        tree.write_tree_cache(str(folder), COMMIT, entries)
        return write(folder / "snapshots" / COMMIT, *files)

    return written


def test_a_cached_adapter_works_offline_though_the_cache_knows_that_it_has_no_config(
    model: Path, cached: Written
) -> None:
    folder = cached("me/lora", "adapter_config.json", "adapter_model.safetensors", missing=("config.json",))
    assert named(model, lora="me/lora") == f"{named(model)}+me/lora@{COMMIT[:12]}"
    assert adapter_folder(ModelSpec(provider="vllm", model=str(model), lora="me/lora")) == folder


def spec(**more: Any) -> ModelSpec:  # Any: ModelSpec's own fields
    return ModelSpec(provider="transformers", model="me/model", **more)


@pytest.mark.parametrize(
    "unneeded", ["pytorch_model.bin", "onnx/model.bin", "onnx/config.json", "original/params.json", "image.png"]
)
def test_of_a_hub_model_nothing_is_fetched_that_is_not_loaded(unneeded: str, cached: Written, tmp_path: Path) -> None:
    folder = cached("me/model", *FILES, listed=(unneeded,))
    assert model_folder(spec(), tmp_path) == folder
    assert identity_of(spec()) == f"transformers:me/model@{COMMIT[:12]}"


@pytest.mark.parametrize("needed", ["modeling_own.py", "merges.txt", "chat_template.jinja", "model-2.safetensors"])
def test_of_a_hub_model_all_that_is_loaded_is_fetched(needed: str, cached: Written, tmp_path: Path) -> None:
    folder = cached("me/model", *FILES, listed=(needed,))
    with pytest.raises(ConfigError, match="the Hugging Face hub gave none"):
        model_folder(spec(), tmp_path)
    write(folder, needed)
    assert model_folder(spec(), tmp_path) == folder


def test_pickled_weights_are_fetched_where_there_are_no_others(cached: Written, tmp_path: Path) -> None:
    folder = cached("me/model", *FILES[1:], listed=("pytorch_model.bin",))
    with pytest.raises(ConfigError, match="the Hugging Face hub gave none"):
        model_folder(spec(), tmp_path)
    write(folder, "pytorch_model.bin")
    assert model_folder(spec(), tmp_path) == folder


def test_of_a_subfolder_its_weights_are_fetched_and_the_tokenizer_around_it(cached: Written, tmp_path: Path) -> None:
    inner = ("ckpt-500/config.json", "ckpt-500/model.safetensors")
    unneeded = ("model.safetensors", "ckpt-500/pytorch_model.bin", "ckpt-500/deep/config.json", "ckpt-7/config.json")
    folder = cached("me/model", *FILES[2:], *inner, listed=unneeded)
    chosen = spec(engine={"subfolder": "ckpt-500/"})
    assert model_folder(chosen, tmp_path) == folder
    assert identity_of(chosen).startswith(f"transformers:me/model@{COMMIT[:12]}+engine:")
    (folder / inner[1]).unlink()
    with pytest.raises(ConfigError, match="the Hugging Face hub gave none"):
        model_folder(chosen, tmp_path)


def test_a_name_that_is_nowhere_is_an_error_in_one_line(cached: Written) -> None:
    with pytest.raises(ConfigError, match="no folder or GGUF file 'me/nothing', and the Hugging Face hub") as caught:
        named("me/nothing")
    assert "\n" not in str(caught.value)
