"""GRPO and RLOO rewarded by reward models and judges through the door; a reward model from training to evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import rlaif
from rlaif.backends import ModelSpec, identity_of
from rlaif.evaluate.reward_pairs import read_groups
from rlaif.evaluate.rewards import evaluate_rewards
from rlaif.journal import Journal
from rlaif.store import RunFolder
from rlaif.train.online import OnlineSettings, check_online
from rlaif.train.rewards import open_rewards, whole_groups

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # The trainers' own: torch, transformers and accelerate deprecate among themselves.
    pytest.mark.filterwarnings("default"),
]

trl = pytest.importorskip("trl", reason="needs the [train] extra")
torch = pytest.importorskip("torch", reason="needs the [train] extra")
transformers = pytest.importorskip("transformers", reason="needs the [train] extra")

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CPU: dict[str, Any] = {
    "use_cpu": True, "bf16": False, "report_to": "none", "logging_steps": 1, "save_strategy": "no",
    "disable_tqdm": True,
}  # fmt: skip
WORDS = ["kindness", "costs", "nothing", "rain", "falls", "on", "bees", "locks"]
PAIRS = [
    {
        "prompt": [{"role": "user", "content": f"What of {WORDS[i % 8]} {i}?"}],
        "chosen": [{"role": "assistant", "content": " ".join(["kindness"] * (1 + i % 3))}],
        "rejected": [{"role": "assistant", "content": " ".join(["locks"] * (1 + i % 4))}],
    }
    for i in range(48)
]
JUDGE = {"reward": ["judge:scripted"]}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two small layers with random weights, and a byte-level tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    specials = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=specials, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([" ".join(WORDS)], trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>", chat_template=TEMPLATE
    )
    torch.manual_seed(5)
    config = transformers.LlamaConfig(
        vocab_size=len(fast), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=512, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("made") / "tiny"
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def trained(base: Path, to: Path, seed: int, peft_config: Any = None) -> Path:
    """A reward model as TRL trains and saves one."""
    import datasets

    arguments = trl.RewardConfig(
        output_dir=str(to / "checkpoints"), max_steps=30, seed=seed,
        learning_rate=5e-3 if peft_config is None else 5e-2,
        per_device_train_batch_size=8, center_rewards_coefficient=0.01, **CPU,
    )  # fmt: skip
    rows = datasets.Dataset.from_list(PAIRS[:32])
    trainer = trl.RewardTrainer(model=str(base), args=arguments, train_dataset=rows, peft_config=peft_config)
    trainer.train()
    trainer.save_model(str(to))
    return to


@pytest.fixture(scope="module")
def reward_models(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("rewards")
    return [trained(tiny, folder / f"rm-{seed}", seed) for seed in (1, 2)]


def settings(runs_dir: Path, more: Mapping[str, Any]) -> OnlineSettings:
    made = OnlineSettings.model_validate({"runs_dir": str(runs_dir), **more})
    check_online(made)
    return made


def one_step(
    method: str, tiny: Path, folder: Path, rewarding: OnlineSettings, steps: int = 1
) -> list[dict[str, float]]:
    """What TRL logged."""
    import datasets

    prompts = datasets.Dataset.from_list([{"prompt": row["prompt"], "id": str(i)} for i, row in enumerate(PAIRS)])
    arguments = getattr(trl, f"{method}Config")(
        output_dir=str(folder / "out"), num_generations=4, per_device_train_batch_size=8, max_completion_length=6,
        max_steps=steps, learning_rate=1e-2, seed=7, **CPU,
    )  # fmt: skip
    with open_rewards(
        rewarding, folder=folder, name="train-x", environment={}, whole_groups=whole_groups(arguments)
    ) as functions:
        trainer = getattr(trl, f"{method}Trainer")(
            model=str(tiny), reward_funcs=list(functions), args=arguments, train_dataset=prompts
        )
        trainer.train()
    history: list[dict[str, float]] = trainer.state.log_history
    assert all(math.isfinite(line["loss"]) for line in history if "loss" in line)
    return history


def calls(runs_dir: Path) -> int:
    import sqlite3

    with sqlite3.connect(runs_dir / "calls.sqlite") as journal:
        return int(journal.execute("SELECT count(*) FROM calls").fetchone()[0])


@pytest.mark.parametrize("method", ["GRPO", "RLOO"])
def test_a_judge_behind_the_door_rewards_a_step_and_the_same_step_again_asks_nothing(
    method: str, tiny: Path, tmp_path: Path
) -> None:
    first = one_step(method, tiny, tmp_path, settings(tmp_path / "runs", JUDGE))[0]
    assert first["judge/sent"] == calls(tmp_path / "runs") > 0
    assert first["judge/unscored"] == 0
    assert -1 <= first["rewards/judge/mean"] <= 1
    again = one_step(method, tiny, tmp_path, settings(tmp_path / "runs", JUDGE))[0]
    assert again["judge/sent"] == 0
    assert again["judge/from_journal"] == first["judge/sent"]
    assert again["reward"] == first["reward"]


def test_what_the_calls_took_is_in_the_journals_ledger_under_the_trainings_name(tiny: Path, tmp_path: Path) -> None:
    one_step("GRPO", tiny, tmp_path, settings(tmp_path / "runs", JUDGE))

    async def ledger() -> dict[str, int]:
        async with Journal(tmp_path / "runs" / "calls.sqlite", read_only=True) as journal:
            return {charge.stage: charge.sent for charge in journal.ledger("train-x")}

    import asyncio

    assert asyncio.run(ledger())["judge"] == calls(tmp_path / "runs")


@pytest.mark.parametrize("method", ["GRPO", "RLOO"])
def test_completions_whose_rating_failed_are_left_out_of_the_training(method: str, tiny: Path, tmp_path: Path) -> None:
    faulty = {"provider": "scripted", "script": {"error_rate": 0.5}, "attempts": 1}
    rewarding = settings(tmp_path / "runs", {"reward": ["judge:faulty"], "models": {"faulty": faulty}})
    logged = one_step(method, tiny, tmp_path, rewarding, steps=3)
    lost = [line["judge/failed"] for line in logged if "judge/failed" in line]
    assert 0 < sum(lost) < len(lost)
    assert all(math.isfinite(line["reward"]) for line in logged if "reward" in line)


def test_a_reward_model_and_an_ensemble_reward_as_they_score_alone(
    tiny: Path, reward_models: list[Path], tmp_path: Path
) -> None:
    both = ",".join(map(str, reward_models))
    rewarding = settings(tmp_path / "runs", {"reward": [str(reward_models[0]), both], "combine": "penalised"})
    logged = one_step("GRPO", tiny, tmp_path, rewarding)[0]
    assert logged["reward_model/unscored"] == logged["ensemble/unscored"] == 0
    assert logged["ensemble/spread"] > 0
    prompt, answer = PAIRS[0]["prompt"], PAIRS[0]["chosen"]
    with open_rewards(rewarding, folder=tmp_path, name="x", environment={}) as (alone, together):
        (score,) = alone([prompt], [answer])
        (mean,) = together([prompt], [answer])  # one completion has no spread
    plain = [plainly(folder, [*prompt, *answer]) for folder in reward_models]
    assert score == pytest.approx(plain[0], abs=1e-4)
    assert mean == pytest.approx(sum(plain) / 2, abs=1e-4)


def plainly(folder: Path, turns: list[dict[str, str]]) -> float:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32").eval()
    with torch.no_grad():
        return float(model(tokenizer.apply_chat_template(turns, return_tensors="pt")["input_ids"]).logits[0, 0])


def test_a_trained_reward_model_is_a_judge_and_can_be_evaluated(
    tiny: Path, reward_models: list[Path], tmp_path: Path
) -> None:
    file = tmp_path / "held-out.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in PAIRS[32:]))
    found = evaluate_rewards(
        [str(folder) for folder in reward_models], read_groups(str(file)), folder=tmp_path / "e", environment={}
    )
    assert [one.model for one in found.models] == ["rm-1", "rm-2", "ensemble (mean)"]
    assert all((one.accuracy.value or 0) > 0.9 for one in found.models)
    assert found.models[0].identity == identity_of(ModelSpec(provider="reward", model=str(reward_models[0])))
    result = rlaif.generate(
        "small",
        policy="scripted",
        limit=2,
        run="r",
        runs_dir=tmp_path,
        set=(f"models.reward=reward/{reward_models[0]}", "judge.by=reward"),
        environment={},
    )
    assert (result.status, result.failed) == ("done", 0)
    verdicts = [verdict for record in RunFolder(tmp_path, "r").records() for verdict in record.verdicts]
    assert {verdict.judge for verdict in verdicts} == {"rm-1"}


def test_an_adapter_of_a_reward_model_is_evaluated_on_its_base(tiny: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="needs the [train] extra")
    lora = peft.LoraConfig(task_type="SEQ_CLS", r=8, target_modules="all-linear", modules_to_save=["score"])
    adapter = trained(tiny, tmp_path / "adapter", 1, lora)
    assert (adapter / "adapter_config.json").is_file()
    file = tmp_path / "held-out.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in PAIRS[32:]))
    found = evaluate_rewards([str(adapter)], read_groups(str(file)), folder=tmp_path / "e", environment={})
    assert found.models[0].model == "adapter"
    assert (found.models[0].accuracy.value or 0) > 0.9
