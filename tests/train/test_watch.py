"""The watch over a training: its rules on figures, the file it writes, and a real training it watches."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rlaif.errors import ConfigError
from rlaif.train import lines
from rlaif.train.health import Health, drift, figure, next_beta
from rlaif.train.settings import WatchSettings
from rlaif.train.trackers import TRACKERS, check_trackers

SETTINGS = WatchSettings(window=5, patience=2, start=0.2)


def course(n: int, of: int | None = None, **figures: Any) -> list[dict[str, Any]]:
    """`n` lines of a training of `of` steps; a figure is a number, or a function of the step."""
    return [
        {"step": i, "max_steps": of or n, "time_s": i * 1.0}
        | {name.replace("__", "/"): value(i) if callable(value) else value for name, value in figures.items()}
        for i in range(1, n + 1)
    ]


def warned(method: str, seen: list[dict[str, Any]], settings: WatchSettings = SETTINGS) -> dict[str, int]:
    """The step of each warning."""
    health = Health(method, settings)
    health.replay(seen)
    assert len({warning.name for warning in health.warnings}) == len(health.warnings), "each once"
    return {warning.name: warning.step for warning in health.warnings}


GOOD = {"loss": lambda i: 1 / i, "rewards__margins": 0.5, "rewards__accuracies": 0.8, "drift": 2.0, "grad_norm": 1.0}


def test_a_training_that_learns_gets_no_warning() -> None:
    assert warned("dpo", course(100, **GOOD)) == {}


@pytest.mark.parametrize(
    ("name", "value", "warning"),
    [
        ("rewards__margins", 0.009, "margin"),
        ("rewards__accuracies", 0.54, "accuracy"),
        ("drift", 10.1, "drift"),
        ("completions__clipped_ratio", 0.6, "cut_off"),
        ("frac_reward_zero_std", 0.9, "no_signal"),
    ],
)
def test_a_figure_past_its_limit_warns_after_the_start_a_window_and_patience(
    name: str, value: float, warning: str
) -> None:
    # The start phase is 20 steps, a window 5, and the second mean past the limit is the one that counts.
    assert warned("dpo", course(100, **{**GOOD, name: value})) == {warning: 26}


def test_a_figure_that_is_bad_only_in_the_start_phase_or_for_a_moment_does_not_warn() -> None:
    figures = {**GOOD, "rewards__margins": lambda i: 0.0 if i <= 20 else 0.5, "drift": lambda i: 30.0 if i == 50 else 2}
    assert warned("dpo", course(100, **figures)) == {}


def test_a_training_too_short_for_the_windows_is_judged_at_its_end() -> None:
    seen = course(6, loss=0.7, rewards__accuracies=0.5)
    assert warned("dpo", seen) == {}
    total = {"step": 6, "max_steps": 6, "time_s": 7.0, "train_runtime": 7.0, "train_loss": 0.7}
    assert warned("dpo", [*seen, total]) == {"accuracy": 6}
    assert warned("dpo", [*seen, total | {"max_steps": 60}]) == {}, "one that was stopped goes on later"


def test_the_reward_trainers_own_names_are_watched_too() -> None:
    assert warned("reward", course(100, margin=0.001, accuracy=0.5)) == {"margin": 26, "accuracy": 26}


def test_nan_warns_at_once_also_when_the_line_is_read_back_as_null() -> None:
    seen = course(3, of=100, loss=0.7, grad_norm=lambda i: math.nan if i == 2 else 1.0)
    assert warned("dpo", seen) == {"not_a_number": 2}
    assert warned("dpo", [{k: None if v != v else v for k, v in line.items()} for line in seen]) == {"not_a_number": 2}


def test_a_reward_function_without_a_say_may_log_nan() -> None:
    assert warned("grpo", course(3, of=100, rewards__length__mean=math.nan)) == {}


def test_a_gradient_that_explodes_warns_and_a_single_spike_does_not() -> None:
    assert warned("sft", course(50, of=500, grad_norm=lambda i: 11.0 if i == 30 else 1.0)) == {}
    assert warned("sft", course(50, of=500, grad_norm=lambda i: 11.0 if i >= 30 else 1.0)) == {"gradient": 31}


@pytest.mark.parametrize("factor", [0.4, 2.5])
def test_responses_that_grow_or_shrink_warn(factor: float) -> None:
    lengths = {"completions__mean_length": lambda i: 40 if i <= 20 else 40 * factor}
    assert warned("grpo", course(100, **lengths)) == {"length": 26}


def test_a_loss_that_stands_still_warns_when_three_windows_are_no_better_than_the_three_before() -> None:
    assert warned("sft", course(60, of=600, loss=lambda i: max(1.0, 3 - i / 5))) == {"plateau": 30}
    assert warned("sft", course(60, of=600, loss=lambda i: 3 - i / 30)) == {}


def test_a_policy_gradients_loss_is_not_its_progress_but_the_reward_is() -> None:
    assert warned("grpo", course(60, of=600, loss=0.0, reward=lambda i: i / 10)) == {}
    assert "plateau" in warned("grpo", course(60, of=600, loss=0.0, reward=1.0))


def test_a_rising_loss_on_the_rows_that_only_measure_is_overfitting() -> None:
    assert warned("sft", course(4, of=9, eval_loss=lambda i: [2.0, 1.0, 1.02, 1.2][i - 1])) == {"overfitting": 4}


def test_a_warning_has_its_step_its_figure_and_a_way_out() -> None:
    health = Health("dpo", SETTINGS)
    health.replay(course(100, **{**GOOD, "rewards__accuracies": 0.5}))
    (warning,) = health.warnings
    assert warning.text.startswith("step 26: the preference accuracy is 0.50, under 0.55")
    assert "judge audit" in warning.text
    assert warning.plain()["value"] == 0.5


def test_the_drift_is_in_nats_a_response_whatever_a_trainer_logs() -> None:
    assert drift("dpo", {"rewards/chosen": -0.5}, 0.1) == pytest.approx(5.0)
    assert drift("dpo", {"rewards/chosen": -0.5}, None) is None
    assert drift("kto", {"kl": 3.0}, 0.1) == 3.0
    assert drift("grpo", {"kl": 0.02, "completions/mean_length": 200.0}, 0.1) == pytest.approx(4.0)
    assert drift("grpo", {}, 0.0) is None
    assert drift("sft", {"loss": 1.0}, None) is None


def test_beta_rises_with_drift_falls_without_and_stays_within_ten_times() -> None:
    assert next_beta(0.1, drift=50, target=5, first=0.1) == pytest.approx(0.102)
    assert next_beta(0.1, drift=0, target=5, first=0.1) == pytest.approx(0.098)
    assert next_beta(0.1, drift=5, target=5, first=0.1) == 0.1
    assert next_beta(1.0, drift=50, target=5, first=0.1) == 1.0
    assert next_beta(0.01, drift=0, target=5, first=0.1) == pytest.approx(0.01)


# --- the file ---


def test_lines_past_a_checkpoint_and_half_lines_are_dropped_on_a_resume(tmp_path: Path) -> None:
    for line in course(5, loss=1.0):
        lines.append(tmp_path, line)
    lines.append(tmp_path, {"step": 3, "max_steps": 5, "train_runtime": 9.0})
    with (tmp_path / lines.NAME).open("a") as file:
        file.write('{"step": 6, "lo')
    assert [line["step"] for line in lines.cut(tmp_path, 3)] == [1, 2, 3]
    assert [line["step"] for line in lines.read(tmp_path)] == [1, 2, 3]
    assert lines.cut(tmp_path, 0) == []


def test_a_figure_that_is_no_number_is_null_in_the_file(tmp_path: Path) -> None:
    lines.append(tmp_path, {"step": 1, "loss": math.nan, "grad_norm": math.inf})
    text = (tmp_path / lines.NAME).read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == {
        "step": 1,
        "loss": None,
        "grad_norm": None,
    }
    assert figure(lines.read(tmp_path)[0], "loss") is None


def test_the_tail_gives_a_line_when_its_end_is_there_and_all_anew_when_the_file_was_cut(tmp_path: Path) -> None:
    tail = lines.Tail(tmp_path)
    assert tail.new() == []
    file = tmp_path / lines.NAME
    file.write_text('{"step": 1}\n{"st')
    assert tail.new() == [{"step": 1}]
    with file.open("a") as more:
        more.write('ep": 2}\nnonsense\n[1]\n')
    assert (tail.new(), tail.anew) == ([{"step": 2}], False)
    lines.cut(tmp_path, 1)
    assert (tail.new(), tail.anew) == ([{"step": 1}], True)


# --- trackers ---


def test_a_tracker_that_is_missing_or_unknown_is_one_clear_error() -> None:
    for fine in (None, "none", "all", [], ["none"]):
        check_trackers(fine)
    with pytest.raises(ConfigError, match=r"no tracker 'wandbb' \(did you mean 'wandb'\?\)"):
        check_trackers("wandbb")
    with pytest.raises(ConfigError, match="swanlab is not installed; pip install swanlab"):
        check_trackers(["swanlab"])


# --- the callback ---


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_known_trackers_are_those_of_the_installed_transformers() -> None:
    integrations = pytest.importorskip("transformers.integrations.integration_utils")
    assert set(TRACKERS) == set(integrations.INTEGRATION_TO_CALLBACK)


class Trainer:
    """What the watch needs of one: TRL's keep beta here."""

    beta = 0.1


def watched(
    folder: Path, settings: WatchSettings, seen: list[dict[str, Any]], method: str = "dpo", **state: Any
) -> tuple[Any, Any]:
    """A watch that was called as transformers calls it; and the control it was given."""
    callbacks = pytest.importorskip("transformers")
    from rlaif.train.watch import HealthWatch

    watch = HealthWatch(folder, method, settings)
    watch.trainer = Trainer()
    args = None
    control, now = callbacks.TrainerControl(), callbacks.TrainerState(max_steps=100, **state)
    watch.on_train_begin(args, now, control)
    for line in seen:
        now.global_step = line["step"]
        watch.on_log(args, now, control, {k: v for k, v in line.items() if k not in ("step", "max_steps", "time_s")})
    return watch, control


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_watch_writes_what_it_sees_and_goes_on_after_a_resume(tmp_path: Path) -> None:
    bad = {**GOOD, "rewards__accuracies": 0.5, "rewards__chosen": 0.5}
    first, control = watched(tmp_path, SETTINGS, course(40, of=100, **bad))
    assert not control.should_training_stop
    written = lines.read(tmp_path)
    assert written[0]["drift"] == pytest.approx(5.0)
    assert [w["name"] for w in written[25]["warnings"]] == ["accuracy"]
    again, _ = watched(tmp_path, SETTINGS, course(40, of=100, **bad)[30:], global_step=30)
    assert again.warnings == first.warnings
    resumed = lines.read(tmp_path)
    assert [line["step"] for line in resumed] == list(range(1, 41))
    times = [line["time_s"] for line in resumed]
    assert times == sorted(times)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_stop_ends_the_training_at_its_first_warning(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"stop": True})
    _, control = watched(tmp_path, settings, course(40, of=100, **{**GOOD, "rewards__accuracies": 0.5}))
    assert control.should_training_stop


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_adaptive_beta_follows_the_drift_and_is_taken_up_again_on_a_resume(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"adaptive_beta": True})
    far = {"loss": 0.5, "rewards__chosen": -3.0}
    watch, _ = watched(tmp_path, settings, course(40, of=100, **far))
    betas = [line["beta"] for line in lines.read(tmp_path)]
    assert betas[:21] == [0.1] * 21
    assert betas[21:] == sorted(betas[21:])
    assert betas[-1] == pytest.approx(0.1 * 1.02**19)
    again, _ = watched(tmp_path, settings, [], global_step=30)
    assert again.trainer.beta == pytest.approx(betas[29])
    assert watch.seconds > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_only_the_main_process_writes(tmp_path: Path) -> None:
    watched(tmp_path, SETTINGS, course(3, of=100, **GOOD), is_world_process_zero=False)
    assert not (tmp_path / lines.NAME).exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_adaptive_beta_without_a_drift_to_follow_is_an_error(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"adaptive_beta": True})
    with pytest.raises(ConfigError, match="adaptive_beta: sft has no beta"):
        watched(tmp_path, settings, [], method="sft")
