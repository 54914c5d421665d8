"""Which weights `vllm/MODEL` and `transformers/MODEL` mean: a folder, a GGUF file, or a hub model at one commit."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from rlaif.backends import ModelSpec
from rlaif.backends.gguf import find_weights, sha256_of
from rlaif.errors import ConfigError

# What the answers of a folder's model depend on.
_CONTENT = ("*.safetensors", "*.bin", "config.json", "generation_config.json", "tokenizer*", "*.jinja", "*.model")
_NEEDED = [*_CONTENT, "*.json", "*.txt"]


def identity(spec: ModelSpec) -> str:
    """`vllm:NAME@HASH` of the weights or the hub's commit, and of the adapter. Raises ConfigError."""
    adapter = f"+{_named(spec.lora)}" if spec.lora else ""
    return f"{spec.provider}:{_named(spec.model, spec.engine.get('revision'))}{adapter}"


def model_folder(spec: ModelSpec, spare_folder: Path) -> Path:
    """A folder that `from_pretrained` takes, downloaded or converted if need be. Raises ConfigError."""
    if _is_gguf(spec.model):
        from rlaif.backends.to_hf import converted

        return converted(find_weights(spec.model), spare_folder)
    return _folder(spec.model, spec.engine.get("revision"))


def adapter_folder(spec: ModelSpec) -> Path | None:
    return _folder(spec.lora, None) if spec.lora else None


def _is_gguf(model: str) -> bool:
    return not model or model.endswith(".gguf")


def _named(model: str, revision: str | None = None) -> str:
    """The name with what its content is known by."""
    if _is_gguf(model):
        weights = find_weights(model)
        return f"{weights.stem}@{sha256_of(weights)[:12]}"
    path = Path(model).expanduser()
    if path.is_dir():
        return f"{path.absolute().name}@{_content_hash(path)}"
    return f"{model}@{_commit(model, revision)[:12]}"


def _content_hash(folder: Path) -> str:
    digest = blake2b(digest_size=6)
    files = sorted({file for pattern in _CONTENT for file in folder.glob(pattern) if file.is_file()})
    if not files:
        raise ConfigError(f"{folder} holds no model: no *.safetensors or config.json in it")
    for file in files:
        digest.update(f"{file.name}\0{sha256_of(file)}\0".encode())
    return digest.hexdigest()


def _folder(model: str, revision: str | None) -> Path:
    path = Path(model).expanduser()
    if path.is_dir():
        return path.absolute()
    from huggingface_hub import snapshot_download

    try:
        # By commit: what is loaded is what the answers are filed under.
        return Path(snapshot_download(model, revision=_commit(model, revision), allow_patterns=_NEEDED))
    except ConfigError:
        raise
    except Exception as error:  # offline, gated, a full disk: each release raises other types
        raise _not_on_hub(model, error) from error


def _commit(model: str, revision: str | None) -> str:
    """The commit that a name on the hub stands for; what is in the cache already is not looked up again."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(model, "config.json", revision=revision)
        cached = cached or try_to_load_from_cache(model, "adapter_config.json", revision=revision)
        if isinstance(cached, str):
            return Path(cached).parent.name
        commit = HfApi().repo_info(model, revision=revision).sha
    except Exception as error:
        raise _not_on_hub(model, error) from error
    assert commit is not None
    return commit


def _not_on_hub(model: str, error: Exception) -> ConfigError:
    why = str(error).strip().partition("\n")[0]
    return ConfigError(f"no folder or GGUF file '{model}', and the Hugging Face hub gave none: {why}")
