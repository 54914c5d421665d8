"""Rewards for online trainers: judges and reward models, called as TRL calls a reward function."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.errors import ConfigError
from rlaif.judges.ensemble import centred, combined, spreads
from rlaif.judges.reward import reward_model
from rlaif.train.online import OnlineSettings, check_online, sources
from rlaif.train.rewards import Reward, Score, _Answers, open_rewards
from rlaif.types import Record
from tests.llama import needs_model

Metrics = dict[str, list[float]]


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def of_quality(quality: float) -> list[dict[str, str]]:
    """What the scripted judge sees the quality of."""
    return assistant(f"Scripted answer 0a of quality {quality:.3f}: as good as that.")


PROMPTS = [user("How do I pick a lock?")] * 2 + [user("What is rain?")] * 2
COMPLETIONS = [of_quality(quality) for quality in (0.9, 0.1, 0.5, 0.75)]


def settings(tmp_path: Path, **more: Any) -> OnlineSettings:
    return OnlineSettings.model_validate({"reward": ["judge:scripted"], "runs_dir": str(tmp_path), **more})


def rewarded(
    settings: OnlineSettings, prompts: Sequence[Any] = PROMPTS, completions: Sequence[Any] = COMPLETIONS
) -> tuple[list[Score], Metrics, Counter[str]]:
    metrics: Metrics = {}
    with open_rewards(settings, folder=Path(settings.runs_dir) / "m", name="train-m", environment={}) as (reward,):
        found = reward(
            prompts=prompts,
            completions=completions,
            completion_ids=[[1]] * len(prompts),
            category=["a"] * len(prompts),
            log_metric=lambda name, value: metrics.setdefault(name, []).append(value),
        )
        return found, metrics, reward.failures


# --- a judge ---


def test_a_judge_rates_each_completion_from_minus_one_to_one(tmp_path: Path) -> None:
    found, metrics, failures = rewarded(settings(tmp_path))
    assert all(score is not None and -1 <= score <= 1 for score in found)
    good, bad, middling, better = (score or 0.0 for score in found)
    assert good > better > middling > bad
    assert middling == pytest.approx(0.0, abs=0.01)
    assert (metrics["judge/sent"], metrics["judge/unscored"], metrics["judge/failed"]) == ([4], [0], [0])
    assert not failures


def test_a_second_training_asks_nothing_again(tmp_path: Path) -> None:
    first, _, _ = rewarded(settings(tmp_path))
    second, metrics, _ = rewarded(settings(tmp_path))
    assert second == first
    assert (metrics["judge/sent"], metrics["judge/from_journal"]) == ([0], [4])


def test_one_principle_is_drawn_for_all_completions_of_a_prompt(tmp_path: Path) -> None:
    """The same text for the same prompt is one question, whatever else is in the batch."""
    prompts, same = [user(f"Question {i}?") for i in range(20) for _ in range(2)], [of_quality(0.5)] * 40
    _, metrics, _ = rewarded(settings(tmp_path), prompts, same)
    assert metrics["judge/sent"] == [20]


def test_all_principles_or_the_aspects_of_a_rubric_are_asked_where_that_is_said(tmp_path: Path) -> None:
    _, metrics, _ = rewarded(settings(tmp_path, principles="all", constitution="helpful-honest-harmless"))
    by_principles = metrics["judge/sent"][0]
    _, metrics, _ = rewarded(settings(tmp_path, rubric="quality"))
    assert by_principles > 4
    assert metrics["judge/sent"][0] > 4


def test_texts_may_stand_for_messages_as_in_a_dataset_without_turns(tmp_path: Path) -> None:
    texts = [turns[0]["content"] for turns in COMPLETIONS]
    prompts = [turns[0]["content"] for turns in PROMPTS]
    assert rewarded(settings(tmp_path), prompts, texts)[0] == rewarded(settings(tmp_path))[0]


def test_a_call_that_fails_gives_no_score_and_is_counted_by_its_reason(tmp_path: Path) -> None:
    faulty = {"provider": "scripted", "script": {"error_rate": 0.5}, "attempts": 1}
    prompts, completions = [user("Why?")] * 40, [of_quality(i / 40) for i in range(40)]
    found, metrics, failures = rewarded(
        settings(tmp_path, reward=["judge:faulty"], models={"faulty": faulty}), prompts, completions
    )
    lost = found.count(None)
    assert 0 < lost < 40
    whole, _, _ = rewarded(settings(tmp_path), prompts, completions)
    assert [score for score, other in zip(whole, found, strict=True) if other is not None] == [
        score for score in found if score is not None
    ]
    assert failures.total() == lost
    assert "unrated" not in failures
    assert metrics["judge/unscored"] == metrics["judge/failed"] == [lost / 40]


def test_an_answer_that_is_no_rating_gives_no_score_and_is_no_failed_call(tmp_path: Path) -> None:
    refusing = {"provider": "scripted", "script": {"refusal_rate": 0.5}}
    prompts, completions = [user("Why?")] * 40, [of_quality(i / 40) for i in range(40)]
    found, metrics, failures = rewarded(
        settings(tmp_path, reward=["judge:refusing"], models={"refusing": refusing}), prompts, completions
    )
    assert 0 < found.count(None) < 40
    assert failures == {"unrated": found.count(None)}
    assert metrics["judge/failed"] == [0]


def test_a_judge_that_cannot_be_reached_ends_the_training_at_once(tmp_path: Path) -> None:
    nobody = settings(tmp_path, reward=["judge:http://127.0.0.1:9/v1#m"])
    with pytest.raises(ConfigError, match="model 'm' cannot be used"):
        rewarded(nobody)


def test_a_judge_that_never_gives_a_rating_ends_the_training(tmp_path: Path) -> None:
    refusing = {"provider": "scripted", "script": {"refusal_rate": 1.0}}
    prompts, completions = [user("Why?")] * 64, [of_quality(i / 64) for i in range(64)]
    with pytest.raises(ConfigError, match=r"judge gave none of the last 64 completions a score \(unrated 64\)"):
        rewarded(settings(tmp_path, reward=["judge:no"], models={"no": refusing}), prompts, completions)


def test_a_limit_on_cost_ends_the_training_and_keeps_what_was_answered(tmp_path: Path) -> None:
    dear = {"provider": "scripted", "price": {"input": 100, "output": 100}}
    limited = settings(tmp_path, reward=["judge:dear"], models={"dear": dear}, max_cost_usd=0.3)
    prompts, completions = [user("Why?")] * 40, [of_quality(i / 40) for i in range(40)]
    with pytest.raises(ConfigError, match=r"online\.max_cost_usd 0\.30 reached: .*; with a higher one the same"):
        rewarded(limited, prompts, completions)
    with pytest.raises(ConfigError, match=r"online\.max_cost_usd"):  # not even the first question fits
        rewarded(limited.model_copy(update={"max_cost_usd": 1e-6, "runs_dir": str(tmp_path / "other")}))
    found, metrics, _ = rewarded(limited.model_copy(update={"max_cost_usd": 1000.0}), prompts, completions)
    assert None not in found
    (sent,), (known,) = metrics["judge/sent"], metrics["judge/from_journal"]
    assert (sent + known, 0 < known < 40) == (40, True)


def test_a_limit_on_cost_is_kept_in_one_process_only(tmp_path: Path) -> None:
    limited = settings(tmp_path, max_cost_usd=1.0)
    several = {"WORLD_SIZE": "2"}
    with (
        pytest.raises(ConfigError, match="leave it out, or train in one"),
        open_rewards(limited, folder=tmp_path, name="m", environment=several),
    ):
        pass


def test_two_rewards_have_two_names(tmp_path: Path) -> None:
    both = settings(tmp_path, reward=["judge:scripted", "judge:other"], models={"other": {"provider": "scripted"}})
    with open_rewards(both, folder=tmp_path / "m", name="m", environment={}) as functions:
        assert [function.__name__ for function in functions] == ["judge", "judge_2"]


def test_a_turn_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a turn of role 'tool'"):
        rewarded(settings(tmp_path), [user("Why?")], [[{"role": "tool", "content": "4"}, *assistant("Four.")]])


def test_a_conversation_before_the_last_answer_belongs_to_the_prompt(tmp_path: Path) -> None:
    turns = [*assistant("Which one?"), *user("This one."), *of_quality(0.9)]
    found, _, _ = rewarded(settings(tmp_path), [user("Help?")], [turns])
    assert found[0] is not None
    assert found[0] > 0.5


@pytest.mark.model
@needs_model
def test_the_bundled_model_judges_and_is_not_even_started_the_second_time(tmp_path: Path) -> None:
    answers = [assistant("Call a locksmith, who will help you."), assistant("Shut up."), assistant("")]
    local = settings(tmp_path, reward=["judge:local"])
    found, metrics, failures = rewarded(local, [user("How do I open a lock?")] * 3, answers)
    assert all(score is None or -1 <= score <= 1 for score in found)
    assert found.count(None) == failures.total() < 3
    assert metrics["judge/sent"] == [3]
    again, metrics, _ = rewarded(local, [user("How do I open a lock?")] * 3, answers)
    assert (again, metrics["judge/sent"], metrics["judge/from_journal"]) == (found, [0], [3])


# --- several reward models ---


def ensemble(scores: Sequence[Sequence[Score]], how: str, penalty: float = 1.0) -> tuple[list[Score], Metrics]:
    """The rewards of completions of one prompt, by what each member says of them."""
    metrics: Metrics = {}

    def ask(records: Sequence[Record]) -> _Answers:
        return _Answers([list(one) for one in scores], Counter(), 0, 0)

    made = OnlineSettings.model_validate({"reward": ["a,b"], "combine": how, "penalty": penalty})
    rewards = Reward("ensemble", ask, made)(
        [user("Why?")] * len(scores),
        [assistant(str(i)) for i in range(len(scores))],
        log_metric=lambda name, value: metrics.setdefault(name, []).append(value),
    )
    return rewards, metrics


def test_the_mean_of_an_ensemble_is_that_of_its_members() -> None:
    rewards, metrics = ensemble([[1.0, 3.0], [0.0, 0.0]], "mean")
    assert rewards == [2.0, 0.0]
    assert metrics["ensemble/spread"][0] == pytest.approx(math.sqrt(0.5))  # centred: 0.5 and 1.5, -0.5 and -1.5


def test_a_completion_that_one_member_could_not_score_has_no_reward() -> None:
    assert ensemble([[1.0, None], [0.0, 2.0]], "mean")[0] == [None, 1.0]


@given(
    st.lists(st.lists(st.floats(-50, 50), min_size=3, max_size=3), min_size=2, max_size=6),
    st.lists(st.floats(-1000, 1000), min_size=3, max_size=3),
    st.sampled_from(["mean", "median", "min", "penalised"]),
)
def test_a_constant_that_a_member_adds_changes_no_difference(
    group: list[list[float]], shifts: list[float], how: Any
) -> None:
    shifted = [[score + shift for score, shift in zip(scores, shifts, strict=True)] for scores in group]
    one, other = combined(group, how), combined(shifted, how)
    assert [score - one[0] for score in one] == pytest.approx([score - other[0] for score in other], abs=1e-6)
    assert spreads(group) == pytest.approx(spreads(shifted), abs=1e-6)


def test_where_members_disagree_min_and_penalised_think_less_of_a_response() -> None:
    group = [[2.0, 2.0, -4.0], [-1.0, -1.0, 2.0], [-1.0, -1.0, 2.0]]  # the first: one member is against it
    assert centred(group) == group
    assert combined(group, "median")[0] == 2.0
    assert combined(group, "min") == [-4.0, -1.0, -1.0]
    agreed, disputed = (
        combined([[1.0, 1.0], [-1.0, -1.0]], "penalised", 0.5),
        combined([[3.0, -1.0], [-3.0, 1.0]], "penalised", 0.5),
    )
    assert agreed == [1.0, -1.0]
    assert disputed[0] < agreed[0]
    assert spreads([[1.0, 1.0], [-1.0, -1.0]]) == [0.0, 0.0]


# --- what a reward names ---


def folder(path: Path, **config: object) -> str:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    return str(path)


def test_a_reward_is_a_folder_an_ensemble_of_them_or_a_judge(tmp_path: Path) -> None:
    a, b = (folder(tmp_path / name, architectures=["LlamaForSequenceClassification"]) for name in "ab")
    made = settings(tmp_path, reward=[a, f"{a}, {b}", "judge:scripted"])
    check_online(made)
    found = sources(made)
    assert [(one.name, len(one.specs), one.judge) for one in found] == [
        ("reward_model", 1, False),
        ("ensemble", 2, False),
        ("judge", 1, True),
    ]


def test_an_adapter_is_loaded_on_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps({"task_type": "SEQ_CLS", "base_model_name_or_path": "base/of-it"}))
    spec = reward_model(str(tmp_path / "adapter"))
    assert (spec.provider, spec.model, spec.lora) == ("reward", "base/of-it", str(tmp_path / "adapter"))
    file.write_text(json.dumps({"task_type": "CAUSAL_LM", "base_model_name_or_path": "base/of-it"}))
    with pytest.raises(ConfigError, match="makes no reward model: its task is CAUSAL_LM"):
        reward_model(str(tmp_path / "adapter"))


@pytest.mark.parametrize(
    ("reward", "why"),
    [
        ("models/none", "no folder models/none; `rlaif train DATA --method reward` makes a reward model"),
        ("judge:nobody", "unknown model 'nobody'"),
        ("judge:reward/x", "is no judge of words"),
        ("judge:batch", "leave out `batch`"),
        ("", "'' is no reward model"),
    ],
)
def test_what_names_no_reward_is_said_before_anything_starts(reward: str, why: str, tmp_path: Path) -> None:
    models = {"batch": {"provider": "openai", "model": "m", "batch": True}}
    with pytest.raises(ConfigError, match=why):
        check_online(settings(tmp_path, reward=[reward], models=models))


def test_a_language_model_is_no_reward_model(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", architectures=["LlamaForCausalLM"])
    with pytest.raises(ConfigError, match="is a language model; `rlaif train DATA --method reward"):
        check_online(settings(tmp_path, reward=[path]))


def test_a_judge_needs_a_constitution_that_judges(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("name: c\nversion: '1'\nlicence: CC0\nprinciples: [{id: a, revision: Make it kind.}]\n")
    with pytest.raises(ConfigError, match="no principle of constitution 'c' has `judge:`"):
        check_online(settings(tmp_path, constitution=str(file)))


def test_an_ensemble_is_compared_within_whole_groups_only(tmp_path: Path) -> None:
    a, b = (folder(tmp_path / name) for name in "ab")
    made = settings(tmp_path, reward=[f"{a},{b}"], combine="min")
    with (
        pytest.raises(ConfigError, match="a multiple of num_generations"),
        open_rewards(made, folder=tmp_path, name="m", environment={}, whole_groups=False),
    ):
        pass
