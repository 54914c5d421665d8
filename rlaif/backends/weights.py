"""Which weights `vllm/MODEL` and `transformers/MODEL` mean: a folder, a GGUF file, or a hub model at one commit."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path

from rlaif.backends import ModelSpec
from rlaif.backends.gguf import find_weights, sha256_of
from rlaif.errors import ConfigError

# What the answers of a folder's model depend on: weights in one of the two forms, and all that says how to use them.
_WEIGHTS = ("*.safetensors", "*.bin")
_AROUND = ("*.json", "*.txt", "*.model", "*.jinja", "*.py", "tokenizer*")
_ABOUT = {"training.json", "evaluation.json"}  # what is said of the model, this very identity too
# Fields of `engine` that only place the model or make it faster, that the commit tells (revision), or that each
# request overrides (seed). All others are a part of the identity.
_HARMLESS = {
    "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "distributed_executor_backend",
    "device", "device_map", "max_memory", "gpu_memory_utilization", "kv_cache_memory_bytes", "offload_folder",
    "low_cpu_mem_usage", "max_num_seqs", "max_num_batched_tokens", "max_model_len", "max_logprobs", "enforce_eager",
    "enable_prefix_caching", "enable_chunked_prefill", "async_scheduling", "attn_implementation", "disable_log_stats",
    "download_dir", "trust_remote_code", "revision", "seed",
}  # fmt: skip


def identity(spec: ModelSpec) -> str:
    """`vllm:` and what tells weights, adapter and engine from others, wherever they lie. Raises ConfigError.

    Weights are a folder's HASH, a GGUF file's NAME@HASH or a hub model's NAME@COMMIT.
    """
    adapter = f"+{_named(spec.lora)}" if spec.lora else ""
    weights = _named(spec.model, spec.engine.get("revision"), _subfolder(spec))
    return f"{spec.provider}:{weights}{adapter}{_engine(spec)}"


def model_folder(spec: ModelSpec, spare_folder: Path) -> Path:
    """A folder that `from_pretrained` takes, downloaded or converted if need be. Raises ConfigError."""
    if _is_gguf(spec.model):
        from rlaif.backends.to_hf import converted

        return converted(find_weights(spec.model), spare_folder)
    return _folder(spec.model, spec.engine.get("revision"), _subfolder(spec))


def adapter_folder(spec: ModelSpec) -> Path | None:
    return _folder(spec.lora) if spec.lora else None


def _is_gguf(model: str) -> bool:
    return not model or model.endswith(".gguf")


def _subfolder(spec: ModelSpec) -> str:
    """Where in its folder the weights lie, as `from_pretrained` takes it; "" for the folder itself."""
    return str(spec.engine.get("subfolder") or "").strip("/")


def _engine(spec: ModelSpec) -> str:
    """`+engine:HASH` of the settings that change answers, "" if none is set."""
    engine = spec.model_dump(mode="json")["engine"]
    settings = {name: value for name, value in engine.items() if name not in _HARMLESS}
    if not settings:
        return ""
    return f"+engine:{blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=6).hexdigest()}"


def _named(model: str, revision: str | None = None, subfolder: str = "") -> str:
    """What the content is known by."""
    if _is_gguf(model):
        weights = find_weights(model)
        return f"{weights.stem}@{sha256_of(weights)[:12]}"
    path = Path(model).expanduser()
    if path.is_dir():
        return _content_hash(path, subfolder)
    return f"{model}@{_commit(model, revision)[:12]}"


def _content_hash(folder: Path, subfolder: str) -> str:
    """Of the files themselves, not of where they are: a copy is the same model."""
    inner = folder / subfolder
    weights = _files(inner, _WEIGHTS)
    if not weights and not any((inner / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise ConfigError(f"{inner} holds no model: no *.safetensors, config.json or adapter_config.json in it")
    digest = blake2b(digest_size=6)
    # The tokenizer is the outer folder's.
    for file in sorted({*_files(folder, _AROUND), *_files(inner, _AROUND), *weights}):
        if file.name not in _ABOUT:
            digest.update(f"{file.relative_to(folder).as_posix()}\0{sha256_of(file)}\0".encode())
    return digest.hexdigest()


def _files(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [file for pattern in patterns for file in folder.glob(pattern) if file.is_file()]


def _folder(model: str, revision: str | None = None, subfolder: str = "") -> Path:
    path = Path(model).expanduser()
    if path.is_dir():
        return path.absolute()
    # By commit: what is loaded is what the answers are filed under.
    commit = _commit(model, revision)
    try:
        folder = _fetched(model, commit, "", _AROUND)
        for weights in _WEIGHTS:  # many repositories have both
            _fetched(model, commit, subfolder, (*_AROUND, weights))
            if _files(folder / subfolder, (weights,)):
                break
    except Exception as error:  # offline, gated, a full disk: each release raises other types
        raise _not_on_hub(model, error) from error
    return folder


def _fetched(model: str, commit: str, subfolder: str, patterns: tuple[str, ...]) -> Path:
    """The repository's folder in the cache, with the files of `subfolder` itself that fit."""
    from huggingface_hub import snapshot_download

    inside = f"{subfolder}/" if subfolder else ""
    wanted = [inside + pattern for pattern in patterns]
    # Its * goes over folders too: onnx/model.json is a *.json.
    return Path(snapshot_download(model, revision=commit, allow_patterns=wanted, ignore_patterns=[f"{inside}*/*"]))


def _commit(model: str, revision: str | None) -> str:
    """The commit that a name on the hub stands for; what is in the cache already is not looked up again."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        try:
            # No file is asked for: the folder of what was downloaded before, which its commit names.
            return Path(snapshot_download(model, revision=revision, allow_patterns=[], local_files_only=True)).name
        except LocalEntryNotFoundError:
            commit = HfApi().repo_info(model, revision=revision).sha
    except Exception as error:
        raise _not_on_hub(model, error) from error
    assert commit is not None
    return commit


def _not_on_hub(model: str, error: Exception) -> ConfigError:
    why = str(error).strip().partition("\n")[0]
    return ConfigError(f"no folder or GGUF file '{model}', and the Hugging Face hub gave none: {why}")
