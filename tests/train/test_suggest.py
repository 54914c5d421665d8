"""Which method fits what data and machine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from rlaif.cli.suggest import suggest as command
from rlaif.errors import ConfigError
from rlaif.train.options import options_of
from rlaif.train.suggest import Facts, Machine, Suggestion, facts_of, machine, parameters_of, suggest, weights_for

LAPTOP = Machine(cores=8, memory_bytes=16 << 30)
GPU = Machine(cores=16, memory_bytes=128 << 30, gpu_bytes=80 << 30)
PAIRS = Facts(rows={"dpo": 500, "reward": 500, "sft": 500, "kto": 1000, "grpo": 500})


def by(facts: Facts, machine: Machine = LAPTOP, model: str = "local") -> list[Suggestion]:
    return suggest(facts, machine, model, parameters_of(model))


def first(facts: Facts, **more: Any) -> tuple[str, tuple[str, ...]]:
    found = by(facts, **more)[0]
    assert found.fits
    return found.method, found.options


def test_pairs_are_for_dpo_thumbs_for_kto_and_completions_for_sft() -> None:
    assert first(PAIRS) == ("dpo", ("--lora",))
    assert first(Facts(rows={"kto": 200, "sft": 100}))[0] == "kto"
    assert first(Facts(rows={"sft": 100}))[0] == "sft"


def test_prompts_alone_are_for_a_gpu_and_a_reward() -> None:
    prompts = Facts(rows={"grpo": 100})
    assert not any(one.fits for one in by(prompts))
    assert first(prompts, machine=GPU) == ("rloo", ("--reward", "REWARD", "--lora"))


def test_noisy_labels_are_taken_softly_or_robustly_by_their_expected_noise() -> None:
    noisy = Facts(rows=PAIRS.rows, soft=480, wrong=0.25)
    assert first(noisy) == ("dpo", ("--soft", "--lora"))
    assert "25% of the labels are wrong" in by(noisy)[0].reason
    few_with_p = Facts(rows=PAIRS.rows, soft=100, wrong=0.25)
    robust = ("--set", "dpo.loss_type=robust", "--set", "dpo.label_smoothing=0.25")
    assert first(few_with_p) == ("dpo", (*robust, "--lora"))
    assert first(Facts(rows=PAIRS.rows, soft=480, wrong=0.03)) == ("dpo", ("--lora",))


def test_pairs_of_other_models_come_after_supervised_training_on_the_good_ones() -> None:
    far = Facts(rows=PAIRS.rows, writers={"gpt-4.1": 0.8, "SmolLM2-135M-Instruct": 0.2})
    assert first(far)[0] == "sft"
    near = Facts(rows=PAIRS.rows, writers={"gpt-4.1": 0.2, "SmolLM2-135M-Instruct": 0.8})
    assert first(near)[0] == "dpo"
    assert first(near, model="HuggingFaceTB/SmolLM2-135M-Instruct")[0] == "dpo"


def test_much_longer_chosen_responses_bring_a_damper_on_length() -> None:
    assert first(Facts(rows=PAIRS.rows, longer=1.5)) == ("dpo", ("--set", "dpo.ld_alpha=0.5", "--lora"))
    assert first(Facts(rows=PAIRS.rows, longer=1.2)) == ("dpo", ("--lora",))


def test_a_handful_of_rows_fits_nothing() -> None:
    assert not any(one.fits for one in by(Facts(rows=dict.fromkeys(PAIRS.rows, 20))))


def test_all_weights_are_trained_where_they_fit_and_there_are_many_rows() -> None:
    many = Facts(rows={"dpo": 50_000})
    assert first(many) == ("dpo", ("--full",))
    assert first(many, model="x/Model-1B") == ("dpo", ("--lora",))
    assert first(many, model="x/Model-3B", machine=GPU) == ("dpo", ("--full",))
    assert "size is not known" in weights_for(many, GPU, None).reason


def test_a_model_that_does_not_go_into_the_memory_fits_nothing_and_a_way_out_is_said() -> None:
    assert not any(one.fits for one in by(PAIRS, model="x/Model-70B"))
    assert "there are 16: take a smaller one" in weights_for(PAIRS, LAPTOP, 70e9).reason


def test_the_time_grows_with_rows_and_size_and_shrinks_with_cores() -> None:
    two = by(PAIRS, machine=Machine(2, 16 << 30))[0].seconds
    assert two == pytest.approx(4000)
    assert by(PAIRS)[0].seconds == pytest.approx(1000)
    assert by(PAIRS, model="x/Model-1.35B", machine=Machine(2, 64 << 30))[0].seconds == pytest.approx(40_000)
    assert by(PAIRS, machine=GPU)[0].seconds is None


def test_every_option_that_is_suggested_is_one_that_the_command_takes() -> None:
    cases = [Facts(rows=PAIRS.rows, soft=100, wrong=0.25), Facts(rows=PAIRS.rows, longer=2.0)]
    for one in (one for facts in cases for one in by(facts, machine=GPU)):
        words = list(one.options)
        options_of(one.method, None, [words[i + 1] for i, word in enumerate(words) if word == "--set"])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("x/Qwen3-0.6B", 0.6e9),
        ("SmolLM2-360M-Instruct", 360e6),
        ("llama-3-8b-it", 8e9),
        ("gpt2", None),
        ("local", 135e6),
    ],
)
def test_a_models_size_is_read_from_its_name(name: str, found: float | None) -> None:
    assert parameters_of(name) == found


def test_a_folders_size_is_that_of_its_weights(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"0" * 4000)
    (tmp_path / "config.json").write_text('{"dtype": "float32"}')
    assert parameters_of(str(tmp_path)) == 1000
    (tmp_path / "config.json").write_text('{"dtype": "bfloat16"}')
    assert parameters_of(str(tmp_path)) == 2000


def test_the_machine_tells_its_memory_and_its_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 81559\necho 81559\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert machine().gpu_bytes == 2 * 81559 << 20
    program.write_text("#!/bin/sh\necho no devices; exit 9\n")
    assert machine().gpu_bytes == 0
    assert machine().cores >= 1
    assert machine().memory_bytes > 1 << 28


# --- data ---


def pairs_file(folder: Path, n: int = 60, **more: Any) -> Path:
    rows = [{"prompt": f"{i}?", "chosen": "yes, gladly", "rejected": "no", **more} for i in range(n)]
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_facts_are_counted_as_the_training_reads_the_rows(tmp_path: Path) -> None:
    found = facts_of(str(pairs_file(tmp_path, p=0.7, chosen_model="a", rejected_model="b")), tmp_path)
    assert found.rows == {"dpo": 60, "reward": 60, "grpo": 60}
    assert "completion" in found.missing["sft"]
    assert (found.soft, found.wrong) == (60, pytest.approx(0.3))
    assert found.longer == pytest.approx(5.5)
    assert found.writers == {"a": 0.5, "b": 0.5}


def test_what_no_method_reads_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"question": "?"}\n')
    with pytest.raises(ConfigError, match="question"):
        facts_of(str(tmp_path / "x.jsonl"), tmp_path)
    with pytest.raises(ConfigError, match="no run 'nothing'"):
        facts_of("nothing", tmp_path)


def told(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "100"})
    return result.exit_code, result.output


def test_the_command_prints_the_table_and_what_to_run(tmp_path: Path) -> None:
    path = pairs_file(tmp_path, p=0.7)
    code, text = told(str(path), "--runs-dir", "runs")
    assert code == 0
    assert f"rlaif train {path} --method dpo --model local --soft --lora\n" in text
    assert "dpo --soft" in text
    code, text = told(str(path), "--json")
    found = json.loads(text)
    assert found["command"] == f"rlaif train {path} --method dpo --model local --soft --lora"
    assert found["suggestions"][0]["method"] == "dpo"


def test_the_command_fails_where_nothing_fits_and_obeys_no_markup(tmp_path: Path) -> None:
    code, text = told(str(pairs_file(tmp_path, n=3)))
    assert code == 1
    assert "rlaif train" not in text
    (tmp_path / "x.jsonl").write_text('{"completion": "a", "prompt": "b", "[red]\\u001b[31mq": "?"}\n' * 60)
    code, text = told(str(tmp_path / "x.jsonl"))
    assert "\x1b" not in text
    assert "[red]" in text
