"""Models that TRL trains for us: every method, killed and gone on with, merged, and read by our own backend."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlaif.backends import ModelSpec, identity_of
from rlaif.errors import ConfigError
from rlaif.resources import find
from rlaif.train.data import gathered
from rlaif.train.options import options_of
from rlaif.train.settings import LOG, METRICS, Data, Method, Training, TrainSettings, read_training
from rlaif.train.training import base_of, begin

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # The trainers' own: torch, transformers and accelerate deprecate among themselves.
    pytest.mark.filterwarnings("default"),
]

pytest.importorskip("trl", reason="needs the [train] extra")

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] }} <|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)
WORDS = ["red", "green", "blue", "yellow", "which", "colour", "is", "number", "it", "my", "favourite", "surely", "not"]
PAIRS = [
    {
        "prompt": [{"role": "user", "content": f"which colour is number {WORDS[i % 4]} {WORDS[i % 7]}"}],
        "chosen": [{"role": "assistant", "content": f"it is surely {WORDS[i % 3]} {WORDS[i % 5]}"}],
        "rejected": [{"role": "assistant", "content": f"not {WORDS[i % 4]}"}],
        "p": 0.6 + i % 5 / 10,
        "margin": 0.2,
    }
    for i in range(28)
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two small layers with random weights, and a tokenizer of a few words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    known = ["<pad>", "<unk>", "<|end|>", "<|user|>", "<|assistant|>", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="<|end|>", chat_template=TEMPLATE
    )
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        pad_token_id=fast.pad_token_id,
        eos_token_id=fast.eos_token_id,
        bos_token_id=None,
    )
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def rows_for(method: Method) -> list[dict[str, Any]]:
    match method:
        case "sft":
            return [{"prompt": row["prompt"], "completion": row["chosen"]} for row in PAIRS]
        case "kto":
            sides = [(row, side) for row in PAIRS[:14] for side in ("chosen", "rejected")]
            return [
                {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"} for row, side in sides
            ]
        case "grpo" | "rloo":
            return [{"prompt": row["prompt"]} for row in PAIRS]
    return PAIRS


def put(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


Fit = Callable[..., Training]


@pytest.fixture
def fitted(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """What the child does, here: the imports alone take it 10 s."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def fit(
        method: Method, name: str = "model", online: Any = None, test: bool = False, rows: Any = None, **wanted: Any
    ) -> Training:
        from rlaif.train.fit import fit

        folder = tmp_path / name
        folder.mkdir()
        data = tmp_path / f"{name}-data"
        data.mkdir()
        put(data / "train.jsonl", rows or rows_for(method))
        if test:
            put(data / "test.jsonl", [row | {"prompt": [{"role": "user", "content": "red"}]} for row in PAIRS[:4]])
        flags = {key: wanted.pop(key) for key in ("soft", "lora", "merge") if key in wanted}
        found = gathered([str(data)], method, tmp_path / "runs", soft=flags.get("soft", False))
        settings = TrainSettings(
            method=method,
            base=base_of(str(tiny), tmp_path, found.train, wanted),
            data=found.data,
            options={"max_steps": 2, "gradient_accumulation_steps": 1, **wanted},
            online=online or {},
            **flags,
        )
        fit(begin(folder, settings, found, []), folder)
        return read_training(folder)

    return fit


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        ("sft", {}),
        ("sft", {"lora": False}),
        ("dpo", {"test": True}),
        ("dpo", {"lora": False, "loss_type": ["ipo"]}),
        ("dpo", {"loss_type": "robust", "label_smoothing": 0.1}),
        ("dpo", {"soft": True, "test": True}),
        ("dpo", {"soft": True, "lora": False, "precompute_ref_log_probs": True}),
        ("kto", {}),
        ("reward", {}),
        ("orpo", {}),
    ],
)
def test_every_method_takes_steps_on_every_row_and_leaves_a_model(
    method: Method, wanted: dict[str, Any], fitted: Fit, tmp_path: Path
) -> None:
    done = fitted(method, **wanted)
    assert (done.done, done.steps) == (True, 2)
    assert math.isfinite(done.final["loss"] or math.nan)
    assert ("eval_loss" in done.final) == ("test" in wanted)
    lines = [json.loads(line) for line in (tmp_path / "model" / METRICS).read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]
    weights = "model.safetensors" if wanted.get("lora") is False else "adapter_model.safetensors"
    assert (tmp_path / "model" / weights).is_file()
    assert not (tmp_path / "model" / "training_args.bin").exists()
    assert not [warning for warning in done.warnings if "max_length" in warning]


def test_an_online_method_is_rewarded_by_a_judge_and_by_a_model_of_ours(fitted: Fit, tmp_path: Path) -> None:
    rewarded = fitted("reward", "scorer", merge=True)
    assert rewarded.identity == identity_of(ModelSpec(provider="transformers", model=str(tmp_path / "scorer")))
    sampling = {"num_generations": 2, "max_completion_length": 4, "per_device_train_batch_size": 2}
    runs = {"runs_dir": str(tmp_path / "runs")}
    (tmp_path / "runs").mkdir()
    by_model = fitted("grpo", "by-model", {**runs, "reward": [str(tmp_path / "scorer")]}, **sampling)
    assert by_model.final["rewards/reward_model/mean"] is not None
    by_judge = fitted("rloo", "by-judge", {**runs, "reward": ["judge:scripted/judge"]}, **sampling)
    assert by_judge.final["rewards/judge/mean"] is not None


def test_a_merged_adapter_says_what_base_and_adapter_say(fitted: Fit, tiny: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    apart = fitted("sft", "apart", learning_rate=1e-2)
    merged = fitted("sft", "merged", learning_rate=1e-2, merge=True)
    assert apart.final["loss"] == merged.final["loss"]
    tokens = torch.tensor([[3, 5, 6, 7, 4, 8]])
    with torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(tiny)
        before = base(tokens).logits
        expected = PeftModel.from_pretrained(base, tmp_path / "apart")(tokens).logits
        found = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")(tokens).logits
    assert not torch.allclose(before, expected, atol=1e-3)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not (tmp_path / "merged" / "adapter").exists()


async def test_what_was_trained_is_read_by_our_backend_under_the_identity_that_was_written(
    fitted: Fit, tiny: Path, tmp_path: Path
) -> None:
    from rlaif.backends.transformers import TransformersBackend
    from rlaif.types import Message, Request

    merged, apart = fitted("sft", "merged", merge=True), fitted("sft", "apart")
    whole = ModelSpec(provider="transformers", model=str(tmp_path / "merged"))
    adapted = ModelSpec(provider="transformers", model=str(tiny), lora=str(tmp_path / "apart"))
    assert (merged.identity, apart.identity) == (identity_of(whole), identity_of(adapted))
    for spec in (whole, adapted):
        backend = TransformersBackend(spec, tmp_path)
        request = Request("model", (Message("user", "which colour is it"),), temperature=0.0, max_tokens=4)
        try:
            assert (await backend.complete(request)).usage.completion_tokens
        finally:
            await backend.close()


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"lerning_rate": 1}, "unknown option 'lerning_rate'; did you mean 'learning_rate'?"),
        ({"warmup_steps": "many"}, "--set warmup_steps=many: it should be a valid number"),
        ({"eval_strategy": "epoch"}, "eval_strategy=epoch: no row of DATA is in a test split"),
        ({"eval_strategy": "sometimes"}, "TRL refuses these options: sometimes is not a valid"),
        ({"num_train_epochs": None}, "--set num_train_epochs=None: it should be a valid number"),
        ({"per_device_train_batch_size": 1.5}, "--set per_device_train_batch_size=1.5: it should be a valid integer"),
        ({"max_length": 3}, "all 28 rows are longer than max_length=3 tokens"),
        ({"learning_rate": 1e30, "max_steps": 9, "max_grad_norm": 0}, r"the loss of step \d is (nan|inf), and the"),
    ],
)
def test_what_cannot_be_trained_is_said(wanted: dict[str, Any], said: str, fitted: Fit) -> None:
    with pytest.raises(ConfigError, match=said):
        fitted("dpo", **wanted)


def test_rows_that_are_cut_are_counted(fitted: Fit) -> None:
    assert any("are cut at max_length=14 tokens" in warning for warning in fitted("dpo", max_length=14).warnings)


def test_of_an_answer_that_was_cut_off_no_end_is_learned(fitted: Fit, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def chance_to_stop(truncated: bool, **form: Any) -> float:
        name = f"{truncated}-{len(form)}"
        rows = [row | form | {"truncated": truncated} for row in rows_for("sft")]
        fitted("sft", name, rows=rows, lora=False, learning_rate=1e-2, max_steps=60)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / name)
        model = AutoModelForCausalLM.from_pretrained(tmp_path / name)
        said = "<|user|> which colour is number red red <|end|><|assistant|> it is surely red red"
        with torch.no_grad():
            logits = model(**tokenizer(said, return_tensors="pt")).logits
        return float(logits[0, -1].softmax(-1)[tokenizer.eos_token_id])

    assert chance_to_stop(truncated=False) > 0.8
    assert chance_to_stop(truncated=True) < 0.1
    as_text = {"prompt": "<|user|> which colour <|end|><|assistant|> ", "completion": "it is surely red red"}
    assert chance_to_stop(truncated=False, **as_text) > 0.8
    assert chance_to_stop(truncated=True, **as_text) < 0.1


@pytest.mark.parametrize(
    ("wanted", "how"),
    [({"packing": True}, "packing"), ({"truncation_mode": "keep_end"}, "truncation_mode=keep_end")],
)
def test_answers_whose_end_cannot_be_left_open_are_counted(wanted: dict[str, Any], how: str, fitted: Fit) -> None:
    rows = [row | {"truncated": i < 3} for i, row in enumerate(rows_for("sft"))]
    done = fitted("sft", rows=rows, max_length=64, max_steps=1, **wanted)
    assert f"3 answers were cut off, and with {how} the model learns to stop where they do" in done.warnings


@pytest.mark.parametrize("name", ["sft", "dpo", "dpo-soft", "kto", "reward", "grpo", "rloo"])
def test_the_trl_command_takes_our_recipes(name: str) -> None:
    from importlib import import_module

    method = name.partition("-")[0]
    parser = import_module(f"trl.scripts.{method}").make_parser()
    path = find("pipelines", f"train/{name}")
    _, args, model, _ = parser.parse_args_and_config(["--config", str(path), "--use_cpu", "--bf16", "false"])
    options = options_of(method, path, []).trl  # type: ignore[arg-type]
    assert model.use_peft
    assert args.learning_rate == options["learning_rate"]
    assert model.lora_target_modules == "all-linear"


# --- soft labels ---


def trainers(tiny: Path, folder: Path, p: float, **options: Any) -> tuple[Any, Any]:
    """TRL's and ours, on the same rows in the same order."""
    import datasets
    import trl

    from rlaif.train.soft import SoftDPOTrainer

    rows = datasets.Dataset.from_list([row | {"p": p} for row in PAIRS[:4]])
    made = []
    for i, kind in enumerate((trl.DPOTrainer, SoftDPOTrainer)):
        cpu = {"use_cpu": True, "bf16": False, "report_to": "none", "gradient_checkpointing": False}
        args = trl.DPOConfig(output_dir=str(folder / str(i)), per_device_train_batch_size=4, **cpu, **options)
        made.append(kind(model=str(tiny), args=args, train_dataset=rows))
    return made[0], made[1]


def loss_of(trainer: Any, change: float = 0.02) -> tuple[Any, dict[str, float]]:
    """Of the first batch, with a policy that is not the reference; and the figures that are logged."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter += change * torch.randn_like(parameter)
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch)
    return loss, {name: values[-1] for name, values in trainer._metrics["train"].items()}


@pytest.mark.parametrize("precomputed", [False, True])
def test_at_p_1_soft_labels_are_trls_sigmoid_loss_and_its_figures(
    precomputed: bool, tiny: Path, tmp_path: Path
) -> None:
    theirs, ours = trainers(tiny, tmp_path, 1.0, precompute_ref_log_probs=precomputed)
    (expected, figures), (found, noted) = loss_of(theirs), loss_of(ours)
    assert abs(expected.item() - math.log(2)) > 1e-4  # the policy has moved
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    assert noted == pytest.approx(figures, abs=1e-5)


def test_a_soft_label_is_the_cross_entropy_computed_by_hand(tiny: Path, tmp_path: Path) -> None:
    import torch

    from rlaif.train.soft import soft_loss

    # -0.8 log s(1) - 0.2 log s(-1), with s(1) = 0.7310586
    assert soft_loss(torch.tensor(1.0), torch.tensor(0.8)).item() == pytest.approx(0.8 * 0.3132617 + 0.2 * 1.3132617)
    least = torch.tensor(math.log(0.8 / 0.2), requires_grad=True)  # where the policy is as sure as the label
    soft_loss(least, torch.tensor(0.8)).backward()
    assert least.grad.item() == pytest.approx(0.0, abs=1e-7)
    _, ours = trainers(tiny, tmp_path, 0.8)
    found, noted = loss_of(ours)
    surer, _ = loss_of(trainers(tiny, tmp_path / "surer", 1.0)[1])
    # For each row -log s(h) + (1 - p) h: the mean of h is the mean margin.
    assert found.item() == pytest.approx(surer.item() + 0.2 * noted["rewards/margins"], abs=1e-6)


# --- killed ---


def command(folder: Path, tiny: Path, out: str, *more: str) -> list[str]:
    data = put(folder / "rows.jsonl", rows_for("sft"))
    # -P: whatever else is called rlaif in the current folder stays out.
    start = [sys.executable, "-P", "-m", "rlaif", "train", data, "--method", "sft", "--model", str(tiny)]
    options = [
        "max_steps=24",
        "save_steps=2",
        "gradient_accumulation_steps=1",
        "learning_rate=1e-2",
        "lora_dropout=0.3",
    ]
    return [*start, "--out", str(folder / out), *more, *(part for option in options for part in ("--set", option))]


def environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(folder / "cache")}


def finished(folder: Path, tiny: Path, out: str, *more: str) -> str:
    done = subprocess.run(
        command(folder, tiny, out, *more),
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def children_of(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(one) for one in listed.read_text().split()]


@pytest.fixture(scope="module")
def calm(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """What comes of the training if nobody disturbs it."""
    folder = tmp_path_factory.mktemp("calm")
    finished(folder, tiny, "calm")
    return read_training(folder / "calm")


@pytest.mark.parametrize("who", ["child", "parent", "told"])
def test_a_killed_training_goes_on_and_ends_as_if_nothing_had_been(
    who: str, calm: Training, tiny: Path, tmp_path: Path
) -> None:
    started = subprocess.Popen(
        command(tmp_path, tiny, "killed"),
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    partial = tmp_path / "killed.partial"
    deadline = time.monotonic() + 300
    while not (partial / METRICS).is_file() or (partial / METRICS).read_text().count("\n") < 3:
        assert started.poll() is None, started.stderr.read() if started.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.02)
    [child] = children_of(started.pid)
    os.kill(child if who == "child" else started.pid, signal.SIGTERM if who == "told" else signal.SIGKILL)
    _, said = started.communicate(timeout=120)
    assert not (tmp_path / "killed").exists()
    if who == "child":
        assert started.returncode == 1
        assert "rlaif: it was killed, as the system does when memory runs out" in said
        assert f"the log: {partial / LOG}" in said
        assert "Traceback" not in said
    if who == "told":
        assert started.returncode == 130
        assert "interrupted; run the same command again to go on" in said
    finished(tmp_path, tiny, "killed")
    killed = read_training(tmp_path / "killed")
    assert killed.steps == calm.steps == 24
    assert killed.final["loss"] == pytest.approx(calm.final["loss"], abs=1e-4)
    assert killed.final["mean_loss"] == pytest.approx(calm.final["mean_loss"], abs=1e-4)
    lines = [json.loads(line) for line in (tmp_path / "killed" / METRICS).read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 25))
    assert {"checkpoints", "data", ".lock"}.isdisjoint(path.name for path in (tmp_path / "killed").iterdir())
    assert killed.identity == calm.identity
    assert "is there already" in finished(tmp_path, tiny, "killed")


def test_accelerate_starts_the_same_training(tiny: Path, tmp_path: Path) -> None:
    layout = tmp_path / "mine.yaml"
    layout.write_text(
        "distributed_type: 'NO'\nnum_processes: 1\nnum_machines: 1\nuse_cpu: true\nmixed_precision: 'no'\n"
    )
    finished(tmp_path, tiny, "launched", "--accelerate", str(layout))
    assert read_training(tmp_path / "launched").steps == 24


def test_a_checkpoint_that_a_kill_left_half_written_is_not_gone_on_from(tmp_path: Path) -> None:
    from rlaif.train.fit import _last_checkpoint

    for step, state in ((9, "{}"), (10, '{"global_st'), (11, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert _last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-9")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-9"]


def test_data_is_described_as_it_was_taken(fitted: Fit) -> None:
    [data] = fitted("sft").data
    assert isinstance(data, Data)
    assert (data.rows, data.test_rows, len(data.digest)) == (28, 0, 16)
