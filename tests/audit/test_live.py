"""A judge is audited by asking it, in a run like any other; a run's verdicts become what an audit looks at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import rlaif
from rlaif.api import audit
from rlaif.audit.labels import LabelFile, to_label
from rlaif.audit.live import Answers, _from, of_run
from rlaif.audit.report import audited
from rlaif.audit.table import Items, Judged
from rlaif.errors import ConfigError
from rlaif.export.comparisons import Comparisons
from rlaif.job import Result
from rlaif.runs import existing_run
from rlaif.types import Verdict
from tests.labelled import pairs, write
from tests.llama import needs_model


def judge(role: str = "judge", **script: Any) -> str:
    return f"models.{role}={{provider: scripted, model: {role}, script: {json.dumps(script)}}}"


def asked(folder: Path, rows: list[dict[str, Any]], *assignments: str, **more: Any) -> tuple[Items, list[Judged]]:
    _, answers = run(folder, rows, *assignments, **more)
    return answers.items, [*answers.judges, *([answers.together] if answers.together else [])]


def run(folder: Path, rows: list[dict[str, Any]], *assignments: str, **more: Any) -> tuple[Result, Answers]:
    path = write(folder / "gold.jsonl", rows)
    return audit(path, runs_dir=folder, set=[judge(), *assignments], **{"run": "audit", **more})


def right(items: Items, judged: Judged) -> float:
    return float(np.mean((judged.p > 0.5) == (items.gold == 1)))


def test_each_item_has_the_answers_of_both_orders_beside_peoples_label(tmp_path: Path) -> None:
    rows = pairs(30)
    result, answers = run(tmp_path, rows, judge(skill=100.0, position_bias=1.0))
    items, (scripted,) = answers.items, answers.judges
    assert list(items.gold) == [float(row["label"] == "a") for row in rows]
    assert items.lengths.tolist() == [[len(row["a"]), len(row["b"])] for row in rows]
    assert right(items, scripted) == 1.0
    assert scripted.outcomes == ("ok",) * 30
    clear = np.abs(scripted.p - 0.5) < 0.499
    assert (scripted.p_ab >= scripted.p_ba)[clear].all()  # what is shown first gains
    assert (scripted.calls, scripted.cost_usd) == (60, 0.0)
    assert result.summary["calls"]["sent"] == 60 + 1  # and the question before the run


def test_it_goes_on_where_it_was_stopped_and_asks_nothing_twice(tmp_path: Path) -> None:
    rows = pairs(20)
    result, answers = run(tmp_path, rows, max_calls=15)
    assert (result.status, answers.judges, answers.word) == ("stopped", (), None)  # no part is finished
    result, answers = run(tmp_path, rows)
    (scripted,) = answers.judges
    assert result.status == "done"
    assert result.summary["calls"]["sent"] == 40 + 1 - 15
    assert (scripted.outcomes, scripted.calls) == (("ok",) * 20, 40)
    again, answers = run(tmp_path, rows)
    (same,) = answers.judges
    assert again.summary["calls"]["sent"] == 0
    assert (same.p == scripted.p).all()
    assert same.calls == 40


def test_a_dry_run_asks_nothing_and_foresees_the_calls(tmp_path: Path) -> None:
    result, answers = run(tmp_path, pairs(12), dry_run=True)
    assert (result.status, len(answers.items), answers.judges) == ("dry_run", 12, ())
    assert result.estimate is not None
    assert result.estimate.calls == 24
    assert not (tmp_path / "audit").exists()


def test_a_bad_label_costs_nothing(tmp_path: Path) -> None:
    rows = pairs(3)
    rows[2]["label"] = "the left one"
    with pytest.raises(ConfigError, match=r"gold\.jsonl:3: 'label' is 'the left one'"):
        run(tmp_path, rows)
    assert not (tmp_path / "audit").exists()


def test_a_file_without_a_single_label_costs_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no item has a label"):
        run(tmp_path, [row | {"label": None} for row in pairs(3)])
    assert not (tmp_path / "audit").exists()


def test_what_a_judge_calls_a_tie_prefers_neither_whatever_is_left_of_its_probability() -> None:
    said = Verdict("j", "p", 0, 1, p_ab=0.6, p_ba=0.55, p_tie=0.5, outcome="tie")
    assert _from(0, said)[1:4] == (0.5, 0.5, "tie")
    assert _from(1, msgspec.structs.replace(said, outcome="ok"))[1:3] == pytest.approx((0.45, 0.4))


def test_each_judge_and_file_has_a_run_of_its_own(tmp_path: Path) -> None:
    names = {
        run(tmp_path, pairs(2), judge(skill=skill), run=None, constitution=constitution)[0].run
        for skill, constitution in ((1.0, None), (1.0, "general"), (2.0, "general"))
    }
    assert len(names) == 3


def test_columns_may_have_other_names_and_rows_that_are_twice_are_one_item(tmp_path: Path) -> None:
    rows = pairs(8)
    other = [
        {
            "q": row["prompt"],
            "one": row["a"],
            "two": row["b"],
            "better": 1 if row["label"] == "a" else 2,
            "m1": "writer",
            "m2": None,
            "kind": "even" if i % 2 == 0 else "odd",
        }
        for i, row in enumerate(rows)
    ]
    names = {"prompt": "q", "a": "one", "b": "two", "label": "better", "generator_a": "m1", "generator_b": "m2"}
    items, (scripted,) = asked(tmp_path, [*other, other[3]], columns=names | {"group": "kind"})
    assert len(items) == 8
    assert items.generators[0] == ("writer", None)
    assert items.groups[:2] == ("even", "odd")
    assert right(items, scripted) == 1.0
    first = next(existing_run(tmp_path, "audit").records())
    assert [response.model for response in first.responses] == ["writer", "gold"]
    assert first.category == "even"


def test_two_labels_of_one_pair_that_disagree_are_an_error(tmp_path: Path) -> None:
    rows = pairs(2)
    turned = {"a": "b", "b": "a"}[rows[0]["label"]]
    with pytest.raises(ConfigError, match=r"gold\.jsonl:3: .*line 1 says otherwise"):
        run(tmp_path, [*rows, rows[0] | {"label": turned}])


def test_a_panel_gives_each_judge_and_last_what_is_exported(tmp_path: Path) -> None:
    rows = pairs(40)
    by = "judge.by=[{model: judge}, {model: poor}, {model: worse}]"
    more = [judge("poor", skill=1.0, position_bias=3.0), judge("worse", skill=-8.0), "export.panel=majority"]
    items, judged = asked(tmp_path, rows, by, *more)
    assert [one.judge for one in judged] == ["judge", "poor", "worse", "panel (majority)"]
    audit = audited("gold", items, judged[:-1], together=judged[-1])
    assert sorted(one.judge for one in audit.judges) == ["judge", "panel (majority)", "poor", "worse"]
    assert audit.panel.judges is not None
    assert audit.panel.judges.raters == ("judge", "poor", "worse")
    assert judged[-1].calls == sum(one.calls or 0 for one in judged[:-1]) == 240
    for i, record in enumerate(existing_run(tmp_path, "audit").records()):
        exported = Comparisons(record, "majority").of(0, 1)
        assert exported is not None
        assert judged[-1].p[i] == exported.p


def test_of_a_cascade_the_dear_judge_is_asked_only_where_the_cheap_one_is_not_sure(tmp_path: Path) -> None:
    cascade = "judge.by={kind: cascade, confidence: 0.9, judges: [{model: cheap}, {model: judge}]}"
    _, (cheap, dear, whole) = asked(tmp_path, pairs(40), cascade, judge("cheap", skill=5.0), judge(skill=50.0))
    escalated = [outcome is not None for outcome in dear.outcomes]
    assert 0 < sum(escalated) < 40
    assert (whole.judge, whole.outcomes) == ("cascade", ("ok",) * 40)
    assert cheap.outcomes == ("ok",) * 40  # it did answer, whoever was asked then
    assert np.where(escalated, dear.p, cheap.p).tolist() == whole.p.tolist()
    assert (cheap.calls, dear.calls, whole.calls) == (80, 2 * sum(escalated), 80 + 2 * sum(escalated))


def test_of_several_principles_a_judges_word_is_their_mean(tmp_path: Path) -> None:
    rows = pairs(6)
    all_of_them = ["constitution=aspects", "judge.principles=all"]
    _, (scripted,) = asked(tmp_path, rows, *all_of_them)
    records = list(existing_run(tmp_path, "audit").records())
    assert len(records[0].verdicts) > 1
    for i, record in enumerate(records):
        assert scripted.p_ab[i] == pytest.approx(np.mean([verdict.p_ab for verdict in record.verdicts]))
    assert set(scripted.principles) == {None}


def test_what_is_no_answer_has_its_outcome_and_no_probability(tmp_path: Path) -> None:
    _, (scripted,) = asked(tmp_path, pairs(40), judge(refusal_rate=0.3))
    refused = [outcome == "refusal" for outcome in scripted.outcomes]
    assert 0 < sum(refused) < 40
    assert np.isnan(scripted.p).tolist() == refused


def test_a_pipeline_without_a_judge_of_pairs_cannot_be_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pipeline 'score' has no judge stage to audit"):
        audit(write(tmp_path / "gold.jsonl", pairs(2)), pipeline="score", judge="scripted", runs_dir=tmp_path)


def test_any_pipelines_judge_is_asked_by_its_own_settings(tmp_path: Path) -> None:
    _, (scripted,) = asked(tmp_path, pairs(10), pipeline="rl-cai")
    assert len(set(scripted.principles)) > 1  # drawn
    assert {record.verdicts[0].principle for record in existing_run(tmp_path, "audit").records()} == set(
        scripted.principles
    )


def test_the_verdicts_of_a_run_are_items_with_the_labels_people_gave_it(tmp_path: Path) -> None:
    models = [judge("policy", seed=1), judge(skill=50.0)]
    rlaif.generate("cai", limit=10, runs_dir=tmp_path, run="r", set=[*models, "revise.rounds=1"])
    folder = existing_run(tmp_path, "r")
    answers = of_run(folder)
    items, (scripted,) = answers.items, answers.judges
    assert np.isnan(items.gold).all()
    assert not items.annotators
    assert len(items) == sum(len(record.verdicts) for record in folder.records())
    assert not np.isnan(scripted.p).any()
    for name, says in (("ann", "first"), ("bob", "second"), ("cy", "first")):
        file = LabelFile(folder, name)
        for shown in to_label(folder, name, 5):
            file.add(shown.pair, says)  # type: ignore[arg-type]
    items = of_run(folder).items
    labelled = ~np.isnan(items.gold)
    assert labelled.sum() == 5
    assert (items.gold[labelled] == 1.0).all()  # two of three
    assert sorted(items.annotators) == ["ann", "bob", "cy"]
    assert (items.annotators["bob"][labelled] == 0.0).all()
    verdict = next(folder.records()).verdicts[0]
    assert scripted.p_ab[0] == verdict.p_ab
    assert items.ids[0].endswith(f"/{verdict.first}-{verdict.second}")


def test_a_run_without_verdicts_has_nothing_to_audit(tmp_path: Path) -> None:
    rlaif.generate("rlcd", limit=2, runs_dir=tmp_path, run="r", policy="scripted")
    with pytest.raises(ConfigError, match="run 'r' has no verdicts to audit"):
        of_run(existing_run(tmp_path, "r"))


def test_answers_that_another_run_paid_for_are_counted_and_their_cost_is_not_guessed(tmp_path: Path) -> None:
    _, (first,) = asked(tmp_path, pairs(10), run="one")
    _, (again,) = asked(tmp_path, pairs(10), run="two")
    assert (first.calls, first.cost_usd) == (20, 0.0)
    assert (again.calls, again.cost_usd) == (20, None)
    _, (half,) = asked(tmp_path, pairs(20), run="three")
    assert (half.calls, half.cost_usd) == (40, 0.0)


@needs_model
@pytest.mark.model
@pytest.mark.timeout(600)
def test_the_embedded_model_is_audited_like_any_other(tmp_path: Path) -> None:
    path = write(tmp_path / "gold.jsonl", pairs(10))
    result, answers = audit(path, judge="local", run="audit", runs_dir=tmp_path)
    (local,) = answers.judges
    assert result.status == "done"
    assert (local.calls, local.cost_usd) == (20, 0.0)
    assert local.outcomes == ("ok",) * 10
    assert ((local.p_ab > 0) & (local.p_ab < 1) & (local.p_ba > 0) & (local.p_ba < 1)).all()
    (figures,) = audited("gold", *answers[:2]).judges
    assert figures.accuracy.n == 10
    assert (figures.usable.value, figures.judge) == (1.0, local.judge)
