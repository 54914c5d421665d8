"""The tokenizer of a Hugging Face folder as a GGUF file has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlaif.backends.hf_folder import Folder, read_json
from rlaif.backends.hf_tokenizer import CONTROL, NORMAL, PRE_TOKENIZERS, USER_DEFINED
from rlaif.backends.to_hf import ONCE

UNUSED = 5  # a row of the embeddings that no token has


def tokenizer(model: Folder) -> dict[str, Any]:
    """The metadata. Raises ConfigError for a tokenizer that llama.cpp would cut texts otherwise with."""
    written, config = read_json(model.path, "tokenizer.json"), read_json(model.path, "tokenizer_config.json")
    rules = written["model"]
    if rules.get("type") != "BPE" or rules.get("byte_fallback") or written.get("normalizer"):
        raise model.refused(f"has a tokenizer of the kind '{rules.get('type')}' that is not known here")
    pre = _pre(model, written.get("pre_tokenizer"))
    rows = model.tensors[ONCE["token_embd.weight"]].shape[0]
    tokens, types = [f"[PAD{number}]" for number in range(rows)], [UNUSED] * rows
    ids = {token: number for token, number in rules["vocab"].items() if number < rows}
    added = {token["content"]: token for token in written.get("added_tokens", ())}
    ids |= {token: about["id"] for token, about in added.items() if about["id"] < rows}
    if len(ids) < len(rules["vocab"].keys() | added.keys()):
        raise model.refused(f"has more tokens than the {rows} rows of its embeddings")
    for token, number in ids.items():
        tokens[number] = token
        types[number] = NORMAL if token not in added else CONTROL if added[token]["special"] else USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in rules["merges"]]
    template = model.chat_template()
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.add_space_prefix": False,
        **_ends(model, config, ids, written.get("post_processor")),
        **({"tokenizer.chat_template": template} if template else {}),
    }


def _pre(model: Folder, written: Mapping[str, Any] | None) -> str:
    """Which of llama.cpp's ways to cut a text before its bytes are merged is this one."""
    steps = (written or {}).get("pretokenizers", [written])
    for name, known in PRE_TOKENIZERS.items():
        if len(steps) == len(known) and all(map(_same, steps, known)):
            return name
    raise model.refused(f"has a pre-tokenizer that is none of {', '.join(PRE_TOKENIZERS)}")


def _same(step: Mapping[str, Any] | None, rule: Mapping[str, Any]) -> bool:
    return step is not None and all(step.get(key) == value for key, value in rule.items() if key != "trim_offsets")


def _ends(
    model: Folder, config: Mapping[str, Any], ids: Mapping[str, int], post: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Which tokens begin and end a text, and whether a text is begun and ended with them unasked."""
    roles = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
    found: dict[str, int] = {}
    for there, role in roles.items():
        given = config.get(role)
        token = str(given["content"] if isinstance(given, Mapping) else given)
        if token in ids:
            found[there] = ids[token]
    ends = model.config.get("eos_token_id")
    if (model.path / "generation_config.json").is_file():
        ends = read_json(model.path, "generation_config.json").get("eos_token_id", ends)
    for end in ends if isinstance(ends, list) else [ends]:
        if end is not None and end != found.setdefault("eos", end):
            found.setdefault("eot", end)
    frame = [token for step in _steps(post) for token in step.get("single", ())]
    first, last = (bool(frame) and "SpecialToken" in frame[at] for at in (0, -1))
    return {
        **{f"tokenizer.ggml.{role}_token_id": number for role, number in found.items()},
        "tokenizer.ggml.add_bos_token": first,
        "tokenizer.ggml.add_eos_token": last,
    }


def _steps(post: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if not post:
        return []
    return post["processors"] if post.get("type") == "Sequence" else [post]
