"""Reward models held against labelled pairs: figures by hand, and the whole command with scores from a function."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from rlaif.backends import ModelSpec
from rlaif.backends.scripted import ScriptedBackend
from rlaif.cli import rewards as cli
from rlaif.errors import ConfigError
from rlaif.evaluate.reward_figures import Scores, kendall, reward_figures, spearman, uncertainty
from rlaif.evaluate.reward_pairs import Group, read_groups
from rlaif.evaluate.rewards import evaluate_rewards
from rlaif.types import Message, Request

Made = Callable[[str, Callable[[str], float | str]], str]


def group(*answers: str, ratings: tuple[float, ...] | None = None, margin: float | None = None) -> Group:
    """Without ratings the first answer is the better one of two."""
    turns = tuple((Message("assistant", answer),) for answer in answers)
    pairs: tuple[tuple[int, int, float | None], ...] = ((0, 1, margin),)
    if ratings is not None:
        n = len(ratings)
        pairs = tuple((i, j, ratings[i] - ratings[j]) for i in range(n) for j in range(n) if ratings[i] > ratings[j])
    return Group((Message("user", "Why?"),), turns, pairs, ratings)


def write(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


# --- figures ---


def test_accuracy_counts_the_pairs_won_and_half_of_those_undecided() -> None:
    groups = [group("good", "bad") for _ in range(4)]
    found = reward_figures("m", groups, [(2.0, 1.0), (1.0, 2.0), (0.0, 0.0), (3.0, 1.0)])
    assert (found.accuracy.value, found.accuracy.n, found.pairs) == (0.625, 4, 4)
    assert found.margin == pytest.approx(0.5)


def test_pairs_without_a_score_are_left_out() -> None:
    found = reward_figures("m", [group("good", "bad")] * 2, [(2.0, 1.0), (None, 2.0)])
    assert (found.accuracy.value, found.pairs) == (1.0, 1)


def test_a_prompt_with_many_pairs_counts_as_much_as_one_with_one() -> None:
    """Ten pairs of one prompt, all wrong, and one right pair: half of the prompts."""
    many = group("a", "b", "c", "d", "e", ratings=(5.0, 4.0, 3.0, 2.0, 1.0))
    found = reward_figures("m", [many, group("good", "bad")], [(1.0, 2.0, 3.0, 4.0, 5.0), (1.0, 0.0)])
    assert (found.pairs, found.accuracy.n, found.accuracy.value) == (11, 2, 0.5)
    assert (found.kendall.value, found.kendall.n) == (-1.0, 1)
    assert (found.brier.n, found.overconfidence.n) == (2, 2)


def test_a_model_that_is_as_sure_as_it_is_right_is_calibrated_and_one_with_tripled_scores_is_too_sure() -> None:
    chance = random.Random("calibrated")
    differences = [chance.uniform(-3, 3) for _ in range(20_000)]
    won = [chance.random() < 1 / (1 + math.exp(-abs(d))) for d in differences]
    truth = [abs(d) if right else -abs(d) for d, right in zip(differences, won, strict=True)]
    groups = [group("good", "bad")] * len(truth)
    fair = reward_figures("m", groups, [(d, 0.0) for d in truth])
    sure = reward_figures("m", groups, [(3 * d, 0.0) for d in truth])
    assert fair.ece is not None
    assert fair.ece < 0.02
    assert sure.ece is not None
    assert sure.ece > 0.1
    assert sure.overconfidence.low is not None
    assert sure.overconfidence.low > 0.1
    assert (sure.brier.value or 0) > (fair.brier.value or 0)
    assert sum(one.n for one in fair.calibration) == len(truth)


def test_a_model_that_loves_length_is_right_where_the_better_answer_is_longer_only() -> None:
    groups = [group("long and better", "bad"), group("good", "long and worse"), group("better still, and long", "no")]
    found = reward_figures("m", groups, [tuple(float(n) for n in one.lengths) for one in groups])
    assert found.length.correlation.n == 3
    assert (found.length.accuracy_longer.value, found.length.accuracy_shorter.value) == (1.0, 0.0)
    assert found.length.longer_is_better.value == found.accuracy.value == pytest.approx(2 / 3)


def test_rank_correlations_are_those_of_the_textbook() -> None:
    a, b = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([3.0, 1.0, 2.0, 5.0, 4.0])
    assert kendall(a, b) == pytest.approx(0.4)  # 7 pairs agree, 3 do not
    assert spearman(a, b) == pytest.approx(0.6)
    assert kendall(a, a) == spearman(a, a) == pytest.approx(1.0)
    assert kendall(a, -a) == spearman(a, -a) == pytest.approx(-1.0)
    assert math.isnan(kendall(a, np.ones(5)))
    assert math.isnan(spearman(a, np.ones(5)))


def test_rank_correlations_with_ties_are_scipys() -> None:
    stats = pytest.importorskip("scipy.stats", reason="needs the [audit] extra")
    chance = np.random.default_rng(3)
    a, b = chance.integers(0, 5, 40).astype(float), chance.integers(0, 5, 40).astype(float)
    assert kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_margins_of_the_data_are_compared_by_rank() -> None:
    groups = [group("good", "bad", margin=float(i)) for i in range(20)]
    found = reward_figures("m", groups, [(float(i) ** 2, 0.0) for i in range(20)])
    assert found.kendall_margins.value == pytest.approx(1.0)
    assert reward_figures("m", [group("a", "b")] * 20, [(1.0, 0.0)] * 20).kendall_margins.value is None


def test_an_ensemble_whose_members_differ_where_they_err_says_so() -> None:
    groups = [group("good", "bad")] * 60
    sure: list[Scores] = [(1.0, 0.0)] * 40
    one = [*sure, *[(3.0, 0.0)] * 20]
    other = [*sure, *[(-4.0, 0.0)] * 20]
    together: list[Scores] = [*sure, *[(-0.5, 0.0)] * 20]
    found = uncertainty(["a", "b"], "mean", groups, [one, other], together)
    assert found.correlation.value == pytest.approx(1.0)
    assert [third.value for third in found.thirds] == [1.0, 1.0, 0.0]
    assert (found.unanimous.value, found.unanimous.n) == (1.0, 40)
    assert (found.divided.value, found.divided.n) == (0.0, 20)


# --- data ---


def test_pairs_are_read_in_any_shape_with_what_is_left_out_counted(tmp_path: Path) -> None:
    good, bad = (
        {"prompt": "Why?", "chosen": "So.", "rejected": "No."},
        {"prompt": "Why?", "chosen": "", "rejected": "x"},
    )
    found = read_groups(write(tmp_path / "pairs.jsonl", [good, bad, {**good, "prompt": "How?"}]))
    assert len(found.groups) == 2
    assert found.dropped == {"empty_chosen": 1}
    assert found.groups[0].pairs == ((0, 1, None),)


def test_answers_with_ratings_give_every_pair_that_has_a_better_one(tmp_path: Path) -> None:
    answers = [{"response": text, "score": score} for text, score in (("a", 3), ("b", 1), ("c", 3))]
    file = write(tmp_path / "rated.jsonl", [{"prompt": "Why?", "completions": answers}])
    (only,) = read_groups(file).groups
    assert (only.ratings, sorted(only.pairs)) == ((3.0, 1.0, 3.0), [(0, 1, 2.0), (2, 1, 2.0)])


def test_single_rated_answers_are_brought_together_by_their_prompt(tmp_path: Path) -> None:
    rows = [{"prompt": p, "response": r, "helpfulness": s} for p, r, s in (("1", "a", 4), ("2", "b", 1), ("1", "c", 2))]
    found = read_groups(write(tmp_path / "steer.jsonl", rows))
    (only,) = found.groups
    assert only.pairs == ((0, 1, 2.0),)
    assert found.dropped == {"too_few_rated": 1}


def test_thumbs_up_and_down_are_no_comparison(tmp_path: Path) -> None:
    rows = [{"prompt": "Why?", "completion": "So.", "label": True}]
    with pytest.raises(ConfigError, match="a reward model compares answers to the same prompt"):
        read_groups(write(tmp_path / "kto.jsonl", rows))


def test_of_a_dataset_with_a_test_split_that_one_is_taken(tmp_path: Path) -> None:
    row = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}
    write(tmp_path / "train.jsonl", [row] * 3)
    write(tmp_path / "test.jsonl", [{**row, "prompt": "How?"}])
    assert read_groups(str(tmp_path)).splits == ("test",)
    assert len(read_groups(str(tmp_path), split="train").groups) == 3


# --- the whole of it ---


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Makes a folder of a reward model whose scores a function of the answer gives; `asked` counts."""
    scores: dict[str, Callable[[str], float | str]] = {}

    def opened(spec: ModelSpec, environment: object, log_folder: object) -> ScriptedBackend:
        def answer(request: Request) -> str:
            asked.append(spec.model)
            return str(scores[spec.model](request.messages[-1].content))

        return ScriptedBackend(answer)

    def made(name: str, score: Callable[[str], float | str]) -> str:
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"architectures": ["X"], "name": name}))
        scores[str(folder)] = score
        return str(folder)

    monkeypatch.setattr("rlaif.models.open_backend", opened)
    asked.clear()
    return made


asked: list[str] = []


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    rows = [
        {"prompt": f"Question {i}?", "chosen": "good " * (1 + i % 4), "rejected": "bad " * (1 + i % 3)}
        for i in range(60)
    ]
    return write(tmp_path / "pairs.jsonl", rows)


def run(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(cli.reward)
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "120"}, catch_exceptions=False)


def test_scores_are_asked_once_and_known_the_second_time(make: Made, pairs: str, tmp_path: Path) -> None:
    model = make("right", lambda text: 2.0 if "good" in text else -1.0)

    def evaluated() -> Any:
        return evaluate_rewards([model], read_groups(pairs), folder=tmp_path / "runs" / "e", environment={})

    first = evaluated()
    assert first.models[0].accuracy.value == 1.0
    assert len(asked) == 120
    assert evaluated() == first
    assert len(asked) == 120


def test_the_command_writes_what_it_found_and_shows_it(make: Made, pairs: str, tmp_path: Path) -> None:
    right = make("right", lambda text: 2.0 if "good" in text else -1.0)
    long = make("long", lambda text: len(text) / 10)
    done = run(right, long, "--data", pairs, "--runs-dir", str(tmp_path / "runs"), "--run", "e")
    assert done.exit_code == 0, done.output
    folder = tmp_path / "runs" / "e" / "evaluation"
    content = json.loads((folder / "evaluation.json").read_bytes())
    assert (content["kind"], content["format"]) == ("reward", 1)
    by_name = {one["model"]: one for one in content["models"]}
    assert by_name.keys() == {"right", "long", "ensemble (mean)"}
    assert by_name["right"]["accuracy"]["value"] == 1.0
    assert by_name["long"]["accuracy"] == by_name["long"]["length"]["longer_is_better"]
    assert by_name["long"]["length"]["gain"]["value"] == 0
    assert by_name["right"]["length"]["gain"]["low"] > 0
    assert by_name["right"]["identity"].startswith("reward:")
    assert content["ensemble"]["members"] == ["right", "long"]
    assert "100.0%" in done.output
    assert "long is not known to be better than choosing the longer answer" in done.output.replace("\n", " ")
    assert "## Reward models" in (folder / "evaluation.md").read_text()
    for name in ("accuracy.png", "reliability.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_as_json_it_prints_the_file(make: Made, pairs: str, tmp_path: Path) -> None:
    model = make("right", lambda text: 2.0 if "good" in text else -1.0)
    done = run(model, "--data", pairs, "--runs-dir", str(tmp_path / "runs"), "--json")
    assert json.loads(done.stdout)["models"][0]["model"] == "right"
    assert (tmp_path / "runs" / "eval-reward-right" / "evaluation" / "evaluation.json").is_file()


def test_an_answer_that_is_no_score_is_counted_and_left_out(make: Made, pairs: str, tmp_path: Path) -> None:
    model = make("odd", lambda text: "nan" if text.startswith("good good good") else float(len(text)))
    found = evaluate_rewards([model], read_groups(pairs), folder=tmp_path / "runs" / "e", environment={})
    assert found.models[0].pairs == 30
    assert found.models[0].failures == {"no_score": 30}


def test_a_model_that_scores_nothing_is_an_error(make: Made, pairs: str, tmp_path: Path) -> None:
    model = make("mute", lambda _: "I am a language model")
    with pytest.raises(ConfigError, match=r"mute scored none of 120 texts \(no_score 120\)"):
        evaluate_rewards([model], read_groups(pairs), folder=tmp_path / "runs" / "e", environment={})


def test_a_model_named_twice_and_an_unknown_way_to_combine_are_refused(make: Made, pairs: str, tmp_path: Path) -> None:
    model = make("right", lambda _: 1.0)
    with pytest.raises(ConfigError, match="is named twice"):
        run(model, model, "--data", pairs, "--runs-dir", str(tmp_path))
    with pytest.raises(ConfigError, match="--combine best: unknown; there are: mean, median, min, penalised"):
        run(model, "--data", pairs, "--combine", "best")
