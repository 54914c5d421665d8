"""YAML that the `trl` command takes as it is, one file per dataset configuration that it can train on."""

from __future__ import annotations

from collections.abc import Iterable

from rlaif.export.settings import Config

# PyYAML reads 5e-7 as a string, 5.0e-7 as a number. KTO needs more than one row a batch. GRPO and RLOO, for
# `prompts`, need a reward function or model that an export does not have.
_TRAINING: dict[Config, tuple[str, str]] = {
    "preference": ("dpo", "beta: 0.1\nlearning_rate: 5.0e-7 # with LoRA (--use_peft) about ten times that\n"),
    "sft": ("sft", "learning_rate: 2.0e-5\n"),
    "kto": ("kto", "beta: 0.1\nlearning_rate: 5.0e-7\n"),
    "reward": (
        "reward",
        "learning_rate: 1.0e-5 # with LoRA (--use_peft) about ten times that\n"
        "center_rewards_coefficient: 0.01 # keeps the mean reward near 0\n",
    ),
}

_RECIPE = """\
# {title} with TRL >= 1.16 (pip install trl peft). Run from this folder:
#   trl {method} --config trl-{method}.yaml
# from elsewhere add --dataset_name FOLDER/{config}; without a GPU add --use_cpu --bf16 false.
# Whatever is set here can be set on the command line too, and wins there.
model_name_or_path: HuggingFaceTB/SmolLM2-135M-Instruct # better: the model whose responses these are
dataset_name: ./{config}
output_dir: ../{method} # not in here: a new export replaces this folder
{training}num_train_epochs: 1
per_device_train_batch_size: 4
gradient_accumulation_steps: 4
max_length: 2048 # TRL drops rows whose {too_long} is longer, without a word
logging_steps: 1
report_to: none
"""


def recipe_name(config: Config) -> str | None:
    return f"trl-{_TRAINING[config][0]}.yaml" if config in _TRAINING else None


def recipe(config: Config, splits: Iterable[str]) -> str:
    method, training = _TRAINING[config]
    too_long = "conversation" if config == "reward" else "prompt alone"
    text = _RECIPE.format(title=method.upper(), method=method, config=config, training=training, too_long=too_long)
    return text + ("eval_strategy: epoch\n" if "test" in splits else "")
