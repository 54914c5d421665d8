"""A loop with real commands and a small random model: killed, gone on with, held back by a gate, and let go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rlaif.store import RunFolder

torch = pytest.importorskip("torch", reason="needs the [train] extra")
transformers = pytest.importorskip("transformers", reason="needs the [train] extra")
pytest.importorskip("trl", reason="needs the [train] extra")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    # torch and transformers deprecate among themselves.
    pytest.mark.filterwarnings("default"),
]

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LOOP = """
model: tiny
rounds: 1
judge: scripted
generate:
  pipeline: rlcd # no judge: any two answers are a pair
  prompts: redteam
  limit: 6
  set: {contrast.max_tokens: 6, models.policy.context_tokens: 2048, filter.rules: [empty]}
train:
  - {method: sft, set: {learning_rate: 1.0e-2, max_length: 256}}
  - {method: dpo, set: {learning_rate: 1.0e-2, max_length: 256}}
replay: 0.5
evaluate:
  hold_out: 0.5
  options: {limit: 3, max-tokens: 6}
  compare: {prompts: helpful, options: {limit: 3, max-tokens: 6}}
gates: {length_ratio: null, repetition: null, boilerplate: null, same: null}
"""


def make_tiny(folder: Path) -> None:
    """Two small layers of random weights, and a byte-level tokenizer with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    specials = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["How do I bake bread?"], trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>", chat_template=TEMPLATE
    )
    torch.manual_seed(7)
    config = transformers.LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=2048,
        initializer_range=0.3,  # at the usual 0.02 all answers are one token repeated
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    root = os.environ.get("PYTHONPATH") or str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-m", "rlaif", "loop", "small.yaml", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root, "COLUMNS": "200", "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def ended(folder: Path, *arguments: str) -> tuple[int, str]:
    process = start(folder, *arguments)
    said, _ = process.communicate()
    return process.returncode, said


def content(path: Path) -> Any:  # Any: what json gives
    return json.loads(path.read_text())


def starts(out: Path) -> dict[str, int]:
    """How often each step was begun, by its log."""
    return {
        f"{log.parent.name}/{log.stem}": log.read_text(errors="replace").count("$ rlaif ")
        for log in sorted(out.glob("round-*/*.log"))
    }


def responses(folder: Path, run: str) -> set[str]:
    return {response.text for record in RunFolder(folder / "runs", run).records() for response in record.responses}


def test_a_loop_survives_a_kill_repeats_no_step_and_takes_only_what_passes_the_gates(tmp_path: Path) -> None:
    make_tiny(tmp_path / "tiny")
    (tmp_path / "small.yaml").write_text(LOOP)
    out = tmp_path / "loops" / "small"

    killed = start(tmp_path)
    until = time.monotonic() + 900
    while not (out / "round-1" / "train-sft.log").exists():
        assert killed.poll() is None, killed.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.1)
    generated = (out / "round-1" / "generate.done.json").read_bytes()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert content(out / "current.json")["model"] == "tiny"

    code, said = ended(tmp_path)
    assert code == 0, said
    assert (out / "round-1" / "generate.done.json").read_bytes() == generated
    assert starts(out)["round-1/generate"] == 1
    assert "round 1  taken" in said
    first = content(out / "current.json")
    assert first["model"] == "loops/small/models/small-r1-dpo"
    once = starts(out)

    # One round more, and a bound that nothing reaches.
    code, said = ended(tmp_path, "--rounds", "2", "--set", "gates.length_ratio=[50, 60]")
    assert code == 1, said
    assert "round 1  taken (before)" in said
    assert "loops/small/models/small-r1-dpo stays: answers" in said
    assert content(out / "current.json") == first
    report = content(out / "round-2" / "report.json")
    assert [gate["name"] for gate in report["gates"] if not gate["passed"]] == ["length", "length"]
    assert {name: n for name, n in starts(out).items() if name.startswith("round-1")} == once

    # The same round by the file's own bounds: judged anew, from what is measured already.
    before = starts(out)
    code, said = ended(tmp_path, "--rounds", "2")
    assert code == 0, said
    assert starts(out) == before
    second = content(out / "current.json")
    assert second["round"] == 2
    assert second["identity"] != first["identity"]

    # Fewer rounds take nothing back.
    code, said = ended(tmp_path)
    assert code == 0, said
    assert content(out / "current.json") == second
    assert starts(out) == before

    # The second round was answered by the model of the first, and not from the journal.
    summary = content(tmp_path / "runs" / "small-r2" / "summary.json")
    assert summary["calls"]["from_journal"] == 0
    assert summary["calls"]["sent"] >= 12
    assert not responses(tmp_path, "small-r1") & responses(tmp_path, "small-r2")
    replayed = content(out / "models" / "small-r2-dpo" / "training.json")["data"]
    assert [(data["source"], data["weight"]) for data in replayed] == [("small-r2", 1.0), ("small-r1", 0.5)]
    whole = content(out / "report.json")
    assert [found["promoted"] for found in whole["rounds"]] == [True, True]
    assert (out / "rounds.png").read_bytes().startswith(b"\x89PNG")
    assert "win rate against the last model" in (out / "report.md").read_text()
