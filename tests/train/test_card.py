"""The card of a trained model: complete, in front matter the hub reads, and closed to anyone's markup."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlaif.train.card import write_card
from rlaif.train.settings import Training, write_training

DONE: dict[str, Any] = {
    "method": "dpo",
    "base": {"model": "local", "identity": "transformers:SmolLM2@1234"},
    "data": [{"source": "round-1", "path": "runs/round-1/dataset", "config": "preference", "weight": 0.5, "cap": 500,
              "rows": 120, "test_rows": 12, "left_out": {"empty response": 3}, "digest": "abcd"}],
    "options": {"beta": 0.05, "max_steps": 3},
    "effective": {"beta": 0.05, "max_steps": 3, "learning_rate": 5e-06},
    "versions": {"trl": "1.16.0"},
    "identity": "transformers:1234+5678",
    "steps": 90,
    "seconds": 754.0,
    "final": {"loss": 0.61, "rewards/margins": 0.2, "rewards/accuracies": None},
    "warnings": ["step 40: the preference accuracy is 0.52"],
    "done": True,
}  # fmt: skip


def written(folder: Path, **changed: Any) -> tuple[dict[str, Any], str]:
    """The front matter and the rest of the card of such a training."""
    folder.mkdir(parents=True, exist_ok=True)
    write_training(folder, Training.model_validate({**DONE, **changed}))
    write_card(folder)
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_front_matter_names_base_library_licence_and_tags(tmp_path: Path) -> None:
    front, _ = written(tmp_path / "m.partial")
    assert front["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert front["base_model_relation"] == "finetune"
    assert front["license"] == "apache-2.0"
    assert front["library_name"] == "transformers"
    assert {"rlaif", "trl", "dpo", "lora"} <= set(front["tags"])
    (tmp_path / "m.partial" / "adapter_config.json").write_text("{}")
    front, body = written(tmp_path / "m.partial")
    assert (front["library_name"], front["base_model_relation"]) == ("peft", "adapter")
    assert "AutoPeftModelForCausalLM" in body


def test_a_base_or_dataset_that_lies_on_this_disk_is_not_told_as_one_of_the_hub(tmp_path: Path) -> None:
    hub = {**DONE["data"][0], "path": "Anthropic/hh-rlhf", "source": "Anthropic/hh-rlhf"}
    front, body = written(tmp_path / "m", base={"model": "/home/me/models/mine", "identity": "x"}, data=[hub])
    assert "base_model" not in front
    assert "license" not in front
    assert front["datasets"] == ["Anthropic/hh-rlhf"]
    assert "/home/me" not in body
    assert "base: `mine`" in body


def test_it_says_how_it_was_trained_on_what_and_how_it_went(tmp_path: Path) -> None:
    _, body = written(tmp_path / "m.partial")
    assert body.startswith("<!-- written by `rlaif train` -->\n\n# `m`\n")
    for said in (
        "| `beta` | `0.05` |  |",
        "| `learning_rate` | `5e-06` | rlaif's default |",
        "| `round-1` | `preference` | `abcd` | 0.5 | 120 | 12 |",
        "`round-1`: 3, `empty response`",
        "| `rewards/margins` | 0.2 |",
        "- `step 40: the preference accuracy is 0.52`",
        "90 steps, 13 minutes",
        "rlaif train round-1=0.5,500 --method dpo --model local --lora --set beta=0.05 --set "
        "max_steps=3 --out models/m\n",
    ):
        assert said in body, said


def test_the_datasets_own_files_tell_its_constitution_and_models(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "constitution.yaml").write_text("name: safety\nversion: '1.0'\n")
    (folder / "pipeline.yaml").write_text("models:\n  judge: {provider: local, model: /home/me/judge.gguf}\n")
    _, body = written(tmp_path / "m", data=[{**DONE["data"][0], "path": str(folder)}])
    assert "`round-1` was made with constitution `safety`, version `1.0`; `judge` `local/judge.gguf`.\n" in body


def test_curves_stand_in_it_if_they_were_drawn(tmp_path: Path) -> None:
    _, body = written(tmp_path / "m")
    assert "matplotlib was not installed" in body
    (tmp_path / "m" / "plots").mkdir()
    (tmp_path / "m" / "plots" / "loss.png").write_bytes(b"png")
    _, body = written(tmp_path / "m")
    assert "![loss](plots/loss.png)" in body
    assert "matplotlib" not in body


def test_an_evaluation_in_the_folder_is_told_before_and_after(tmp_path: Path) -> None:
    def share(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1}

    found = {
        "models": [
            {"model": name, "unsafe": {"harmful_compliance": share(harm)}, "safe": {"over_refusal": share(0.2)}}
            for name, harm in (("base", 0.8), ("/home/me/m", 0.3))
        ],
        "paired": [
            {"before": "base", "after": "/home/me/m",
             "harmful_compliance": {"difference": -0.5, "low": -0.6, "high": -0.4},
             "over_refusal": {"difference": 0.0, "low": -0.05, "high": 0.05}}
        ],
    }  # fmt: skip
    (tmp_path / "m" / "evaluation").mkdir(parents=True)
    (tmp_path / "m" / "evaluation" / "evaluation.json").write_text(json.dumps(found))
    _, body = written(tmp_path / "m")
    assert "| `m` | 30.0% [20.0%, 40.0%] | 20.0% [10.0%, 30.0%] |" in body
    assert "| `base` | `m` | -50.0 [-60.0, -40.0] | +0.0 [-5.0, +5.0] |" in body


@pytest.mark.parametrize("nonsense", ["[1]", "{", '{"models": [3], "paired": {"a": 1}, "pairs": [{"a": {}}]}'])
def test_an_evaluation_of_another_shape_harms_nothing(tmp_path: Path, nonsense: str) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "evaluation.json").write_text(nonsense)
    _, body = written(tmp_path / "m")
    assert "## Known limits" in body


EVIL = "`](http://evil) <script>alert(1)</script> | ![x](http://evil)\n# head\n---\n\x1b[31m"


def test_no_name_setting_or_warning_leaves_its_code(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    evaluation = {"models": [{"model": EVIL, "unsafe": {"harmful_compliance": {"value": 0.1, "low": 0, "high": 1}}}]}
    (tmp_path / "m" / "evaluation.json").write_text(json.dumps(evaluation))
    _, body = written(
        tmp_path / "m",
        base={"model": EVIL, "identity": EVIL},
        data=[{**DONE["data"][0], "source": EVIL, "config": EVIL, "path": EVIL, "left_out": {EVIL: 1}}],
        options={"run_name": EVIL, EVIL: 1},
        versions={"trl": EVIL},
        final={EVIL + "loss": 1.0},
        warnings=[EVIL],
        identity=EVIL,
    )
    assert "\x1b" not in body
    fenced, plain = False, []
    for line in body.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced:
            plain.append("".join(line.split("`")[::2]))  # what stands outside of inline code
    assert not [line for line in plain if "evil" in line or "<script" in line or line == "# head"]
    assert "evil" in body, "it is there, as code"


def test_keys_and_places_on_this_disk_are_left_out(tmp_path: Path) -> None:
    options = {"hub_token": "hf_secret", "chat_template_path": "/home/me/template.jinja"}
    _, body = written(tmp_path / "m", options=options, effective={})
    assert "hf_secret" not in body
    assert "/home/me" not in body
    assert "template.jinja" in body
