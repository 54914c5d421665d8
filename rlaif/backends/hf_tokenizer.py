"""The tokenizer of a GGUF file as Hugging Face's files have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlaif.backends.gguf_model import Model

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # token types

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT2_SPLIT = {**BYTES, "use_regex": True}
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = "llama-bpe"
# How each kind of vocabulary cuts a text before it merges bytes, in the words of tokenizer.json.
PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [GPT2_SPLIT],
    "smollm": [{"type": "Digits", "individual_digits": True}, GPT2_SPLIT],
    LLAMA3: [
        {"type": "Split", "pattern": {"Regex": LLAMA3_SPLIT}, "behavior": "Isolated", "invert": False},
        BYTES,
    ],
}


def tokenizer(model: Model) -> dict[str, Any]:
    """tokenizer.json, written out, as transformers' own reader of GGUF does not split the digits of 'smollm'."""
    kind, pre = model.meta.get("tokenizer.ggml.model"), model.meta.get("tokenizer.ggml.pre")
    if kind != "gpt2":
        raise model.refused(f"has a tokenizer of the kind '{kind}', and only 'gpt2' can be converted")
    if pre not in PRE_TOKENIZERS:
        raise model.refused(f"has the pre-tokenizer '{pre}', known: {', '.join(PRE_TOKENIZERS)}")
    tokens: list[str] = model.need("tokenizer.ggml.tokens", list)
    merges: list[str] = model.need("tokenizer.ggml.merges", list)
    types: list[int] = model.meta.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added_token(number, token, special=types[number] == CONTROL)
            for number, token in enumerate(tokens)
            if types[number] in (CONTROL, USER_DEFINED)
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PRE_TOKENIZERS[pre]},
        "post_processor": _post_processor(model.meta, tokens),
        "decoder": BYTES,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,  # a byte that is no token is left out, as llama.cpp does
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre == LLAMA3,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [merge.split(" ", 1) for merge in merges],
        },
    }


def _added_token(number: int, token: str, special: bool) -> dict[str, Any]:
    same = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": token, **same, "special": special}


def _post_processor(meta: Mapping[str, Any], tokens: list[str]) -> dict[str, Any]:
    """The tokens that a text begins and ends with."""

    def wanted(end: str, default: bool) -> list[str]:
        number = meta.get(f"tokenizer.ggml.{end}_token_id")
        add = meta.get(f"tokenizer.ggml.add_{end}_token", default)
        return [tokens[number]] if add and number is not None else []

    first, last = wanted("bos", meta["tokenizer.ggml.pre"] == LLAMA3), wanted("eos", False)

    def around(sequence: str, type_id: int) -> list[dict[str, Any]]:
        parts = [*(("SpecialToken", token) for token in first), ("Sequence", sequence)]
        parts += [("SpecialToken", token) for token in last]
        return [{part: {"id": name, "type_id": type_id}} for part, name in parts]

    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": [*around("A", 0), *around("B", 1)],
        "special_tokens": {
            token: {"id": token, "ids": [tokens.index(token)], "tokens": [token]} for token in first + last
        },
    }


def tokenizer_config(model: Model) -> dict[str, Any]:
    meta, tokens = model.meta, model.need("tokenizer.ggml.tokens", list)
    roles = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    ids = {role: meta.get(f"tokenizer.ggml.{name}_token_id") for role, name in roles.items()}
    template = meta.get("tokenizer.chat_template")
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.need("llama.context_length", int),
        "clean_up_tokenization_spaces": False,
        **{role: tokens[number] for role, number in ids.items() if number is not None},
        **({"chat_template": template} if template else {}),
    }
