"""TRL trains on what we export, loses no row, and takes our YAML as it is."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlaif.export import About, ExportSettings, export_dataset
from tests.export.made import run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # The trainers' own: torch, transformers and accelerate deprecate among themselves.
    pytest.mark.filterwarnings("default"),
]

trl = pytest.importorskip("trl", reason="needs the [train] extra")

RECORDS = 24
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] }} <|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)
CPU: dict[str, Any] = {"use_cpu": True, "bf16": False, "report_to": "none", "max_steps": 1, "logging_steps": 1}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "dataset"
    about = About(run="trl", constitution_name="safety", constitution_version="1.0")
    summary = export_dataset(run(RECORDS), folder, ExportSettings(test_fraction=0.3), about=about)
    assert summary.rows["preference"].keys() == {"train", "test"}
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two small layers with random weights, and a tokenizer made from the texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    specials = ["<pad>", "<unk>", "<|end|>", "<|user|>", "<|assistant|>"]
    texts = [message.content for r in run(RECORDS)() for message in r.prompt]
    texts += [response.text for r in run(RECORDS)() for response in r.responses]
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=specials))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="<|end|>", chat_template=TEMPLATE
    )
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=2048,
        pad_token_id=fast.pad_token_id,
        eos_token_id=fast.eos_token_id,
        bos_token_id=None,
    )
    folder = tmp_path_factory.mktemp("tiny")
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("method", "config"), [("DPO", "preference"), ("SFT", "sft"), ("KTO", "kto"), ("Reward", "reward")]
)
def test_one_step_on_every_row(method: str, config: str, dataset: Path, tiny: Path, tmp_path: Path) -> None:
    import datasets

    loaded = datasets.load_dataset(str(dataset), config, cache_dir=str(tmp_path / "cache"))
    arguments = getattr(trl, f"{method}Config")(output_dir=str(tmp_path / "out"), **CPU)
    trainer = getattr(trl, f"{method}Trainer")(
        model=str(tiny), args=arguments, train_dataset=loaded["train"], eval_dataset=loaded["test"]
    )
    assert len(trainer.train_dataset) == loaded["train"].num_rows
    assert len(trainer.eval_dataset) == loaded["test"].num_rows
    loss = trainer.train().training_loss
    print(method, loss)
    assert math.isfinite(loss)
    assert loss > 0


def test_our_margin_is_subtracted_in_the_reward_loss(dataset: Path, tiny: Path, tmp_path: Path) -> None:
    """The documented loss, recomputed from the rewards: the margin's scale is that of the reward."""
    import datasets
    import torch
    from torch.nn.functional import logsigmoid

    loaded = datasets.load_dataset(str(dataset), "reward", cache_dir=str(tmp_path / "cache"))["train"]
    arguments = trl.RewardConfig(output_dir=str(tmp_path / "out"), **CPU)
    trainer = trl.RewardTrainer(model=str(tiny), args=arguments, train_dataset=loaded)
    batch = next(iter(trainer.get_train_dataloader()))
    margins = torch.tensor(loaded["margin"])
    assert all(any(torch.isclose(margin, margins)) for margin in batch["margin"])
    with torch.no_grad():
        loss, outputs = trainer.compute_loss(trainer.model.eval(), dict(batch), return_outputs=True)
    chosen, rejected = outputs.logits.squeeze(-1).chunk(2)
    assert loss.item() == pytest.approx(-logsigmoid(chosen - rejected - batch["margin"]).mean().item(), abs=1e-5)


def test_grpo_samples_on_our_prompts(dataset: Path, tiny: Path, tmp_path: Path) -> None:
    import datasets

    seen: list[str] = []

    def reward(prompts: list[Any], completions: list[Any], id: list[str], **_: Any) -> list[float]:
        """The shorter the better, of message lists."""
        assert all(prompt[-1]["role"] == "user" for prompt in prompts)
        seen.extend(id)
        return [-float(len(completion[0]["content"])) for completion in completions]

    loaded = datasets.load_dataset(str(dataset), "prompts", cache_dir=str(tmp_path / "cache"))["train"]
    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path / "out"),
        num_generations=4,
        per_device_train_batch_size=4,
        max_completion_length=8,
        **CPU,
    )
    trainer = trl.GRPOTrainer(model=str(tiny), reward_funcs=reward, args=arguments, train_dataset=loaded)
    assert math.isfinite(trainer.train().training_loss)
    assert set(seen) <= set(loaded["id"])
    assert len(seen) >= 4


@pytest.mark.parametrize("method", ["dpo", "sft", "kto", "reward"])
def test_the_trl_command_takes_our_yaml(method: str, dataset: Path, tiny: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "trl"), method, "--config", f"trl-{method}.yaml"]
    overrides = ["--model_name_or_path", str(tiny), "--output_dir", str(tmp_path / "out"), "--max_steps", "1"]
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run(
        [*command, *overrides, "--use_cpu", "--bf16", "false"],
        cwd=dataset,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-3000:]
    losses = re.findall(r"'(?:eval_|train_)?loss': '?([0-9.e+-]+|nan|inf)", output)
    print(method, losses)
    assert losses
    assert all(math.isfinite(float(loss)) for loss in losses), losses
    assert (tmp_path / "out" / "model.safetensors").is_file()
