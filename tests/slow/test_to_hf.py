"""The converted model is the same model: its tokens and its greedy answers are those of llama.cpp."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from rlaif.backends.gguf import INSTALL, _in_wheel, find_weights
from rlaif.backends.hf_tokenizer import PRE_TOKENIZERS
from rlaif.backends.llama_server import Settings, threads
from rlaif.backends.to_hf import convert, converted
from tests.backends.test_to_hf import META, as_gguf, made, write

pytestmark = [
    pytest.mark.slow,
    pytest.mark.model,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("default"),  # torch and transformers deprecate among themselves
]

torch = pytest.importorskip("torch", reason="needs the [train] extra")
transformers = pytest.importorskip("transformers", reason="needs the [train] extra")
gguf = pytest.importorskip("gguf", reason="needs the [local] extra")
pytest.importorskip("xllamacpp", reason="needs the [local] extra")
needs_model = pytest.mark.skipif(_in_wheel() is None, reason=INSTALL)

KEY = "test"
TOKENS = 48
AT_LEAST = 32
PROMPTS = [
    "Name three colours of the rainbow and say where each is seen.",
    "Tell me about the city of Paris.",
    "Write a short poem about the sea.",
    "Explain in two sentences why the sky is blue.",
    "Write a Python function that adds two numbers.",
]
# How far a log-probability moves through llama.cpp's 8-bit activations; measured: 0.13 at the most.
NOISE = 0.25

TEXTS = [
    *("", " ", "  ", "   ", "\n", "\n\n", " \n", "\n ", "\t", "\t\t\n  x", "\r\n", "a\r\nb", "a ", " a", "a   b"),
    *("Hello, world!", "hello world", "HELLO WORLD", "don't we'll I'VE they're he'd I'm it's", "'s 's'S 'll"),
    *("1", "12", "123", "1234567890", "3.14159", "1,000,000", "x1y22z333", "2024-02-29 12:34:56", "½ ² ३ ٣ Ⅻ"),
    *("def f(x):\n    return x ** 2  # square\n", "for (int i = 0; i < 10; ++i) {\n\tsum += a[i];\n}"),
    *("SELECT * FROM t WHERE a='b';", '{"key": [1, 2.5, null], "x": "\\n"}', "<html><body class='x'></body></html>"),
    *("https://example.org/a?b=c&d=%20#e", "user@example.org", "snake_case CamelCase kebab-case SCREAMING_CASE"),
    *("😀", "👩\u200d👩\u200d👧 family", "🇫🇷 flag", "a😀b 😀 😀😀", "你好\uff0c世界\uff01", "中文 和 English 混合 123"),
    *(
        "日本語のテキスト",
        "안녕하세요 세계",
        "Привет, мир!",
        "مرحبا بالعالم",
        "שלום",
        "naïve café",
        "cafe\u0301",
        "ﬁ ﬂ",
    ),
    *("∑∫√ π≈3.14", "cafe\u0301", "\u00a0nbsp\u2003em\u200bzero", "\x00\x01\x7f", "\ufeffbom", "\U0010ffff"),
    *("...", "!?!?", "---", "=== a ===", "((()))", "$100 & 50% @home #tag", "a" * 300, "ab " * 60, " " * 40 + "x"),
    *("<|im_start|>user\nhi<|im_end|>\n", "<|im_start|><|im_start|>", "x<|endoftext|>y", " <|im_end|> ", "<|im_end"),
    *("<repo_name>a<filename>b.py<gh_stars>", "<|not_a_token|>"),
]


class Server(NamedTuple):
    url: str

    def ask(self, path: str, **body: Any) -> Any:  # Any: each of its answers has its own fields
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)

    def ids(self, text: str, special: bool = False) -> list[int]:
        tokens: list[int] = self.ask("/tokenize", content=text, add_special=special)["tokens"]
        return tokens


@contextmanager
def served(weights: Path) -> Iterator[Server]:
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "rlaif.backends.llama_server"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdin
    assert child.stdout
    with child:
        child.stdin.write(msgspec.json.encode(Settings(str(weights), "m", KEY, 1, 1024)) + b"\n")
        child.stdin.flush()
        address = child.stdout.readline().decode().strip()
        assert address, "llama.cpp does not take the file"
        yield Server(address)
        child.stdin.close()


def in_full(source: Path, target: Path) -> Path:
    """The file again with every tensor in F32, for which llama.cpp calculates in F32 too."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        item = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=item)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The bundled model, converted."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        yield converted(find_weights(""), cache / "spare")
    shutil.rmtree(cache)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:  # Any: transformers' own
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[Any]:  # Any: transformers' own
    before = torch.get_num_threads()
    torch.set_num_threads(threads())
    yield transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    torch.set_num_threads(before)


class Answer(NamedTuple):
    prompt: list[int]
    tokens: list[int]


@pytest.fixture(scope="module")
def answers(tokenizer: Any, model: Any) -> list[Answer]:  # Any: transformers' own
    """Our greedy answers to the five prompts."""
    prompts = [tokenizer(chat(tokenizer, prompt))["input_ids"] for prompt in PROMPTS]
    return [Answer(ids, greedy(model, ids)) for ids in prompts]


def chat(tokenizer: Any, prompt: str) -> str:  # Any: transformers' own
    messages = [{"role": "user", "content": prompt}]
    text: str = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return text


def next_two(model: Any, ids: list[int]) -> dict[int, float]:  # Any: transformers' own
    """The two most likely next tokens and their log-probabilities."""
    with torch.inference_mode():
        top = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1].float(), -1).topk(2)
    return dict(zip(top.indices.tolist(), top.values.tolist(), strict=True))


def greedy(model: Any, ids: list[int]) -> list[int]:  # Any: transformers' own
    answer: list[int] = model.generate(torch.tensor([ids]), max_new_tokens=TOKENS, do_sample=False)[0].tolist()
    return answer[len(ids) :]


def completion(server: Server, ids: list[int]) -> tuple[list[int], list[dict[int, float]]]:
    """llama.cpp's greedy answer, and for each of its tokens the two most likely with their log-probabilities."""
    plain = {"temperature": 0, "top_k": 1, "repeat_penalty": 1.0, "cache_prompt": False}
    reply = server.ask("/completion", prompt=ids, n_predict=TOKENS, n_probs=2, return_tokens=True, **plain)
    tops = [{top["id"]: top["logprob"] for top in token["top_logprobs"]} for token in reply["completion_probabilities"]]
    return reply["tokens"], tops


@needs_model
def test_in_full_precision_both_answer_alike(answers: list[Answer], tokenizer: Any, tmp_path: Path) -> None:
    full = in_full(find_weights(""), tmp_path / "F32.gguf")
    with served(full) as server:
        for text, ours in zip(PROMPTS, answers, strict=True):
            assert server.ids(chat(tokenizer, text), special=True) == ours.prompt
            theirs, _ = completion(server, ours.prompt)
            assert len(theirs) >= AT_LEAST, text
            assert ours.tokens == theirs, text
    full.unlink()


@needs_model
def test_quantised_arithmetic_changes_only_what_was_almost_a_tie(answers: list[Answer], model: Any) -> None:
    """llama.cpp calculates with activations of 8 bits where the weights are quantised."""
    with served(find_weights("")) as server:
        for text, ours in zip(PROMPTS, answers, strict=True):
            theirs, tops = completion(server, ours.prompt)
            pairs = zip(ours.tokens, theirs, strict=False)
            equal = next((i for i, (mine, other) in enumerate(pairs) if mine != other), None)
            print(f"{text!r}: equal for {len(theirs) if equal is None else equal} of {len(theirs)} tokens")
            if equal is None:
                continue
            here, there = next_two(model, ours.prompt + ours.tokens[:equal]), tops[equal]
            print(f"  then {here} here, {there} there")
            assert here.keys() == there.keys() == {ours.tokens[equal], theirs[equal]}
            assert max(abs(here[token] - there[token]) for token in here) < NOISE


@needs_model
@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_the_tokens_are_those_of_llama_cpp(pre: str, tmp_path: Path) -> None:
    """With the real vocabulary in a made-up model, once for each way to cut a text."""
    reader = gguf.GGUFReader(find_weights(""))
    real = {name: field.contents() for name, field in reader.fields.items() if name.startswith("tokenizer.")}
    tensors = as_gguf(made(vocabulary=len(real["tokenizer.ggml.tokens"])))
    meta = {**META, **real, "tokenizer.ggml.pre": pre, "tokenizer.ggml.add_bos_token": True}
    weights = write(tmp_path / "tiny.gguf", tensors, meta)
    tokenizer = transformers.AutoTokenizer.from_pretrained(convert(weights, tmp_path / "hf"))
    with served(weights) as server:
        texts = [*TEXTS, *(chat(tokenizer, text) for text in (*PROMPTS, *TEXTS[:8]))]
        theirs = [server.ids(text) for text in texts]
        with_bos = server.ids("Hello", special=True)
    ours = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    wrong = [(text, mine, other) for text, mine, other in zip(texts, ours, theirs, strict=True) if mine != other]
    assert wrong == []
    assert tokenizer("Hello")["input_ids"] == with_bos
    assert with_bos[0] == tokenizer.bos_token_id


@needs_model
def test_an_answer_reads_the_same(tokenizer: Any) -> None:
    with served(find_weights("")) as server:
        for text in TEXTS:
            ids = server.ids(text)
            assert tokenizer.decode(ids) == server.ask("/detokenize", tokens=ids)["content"]
