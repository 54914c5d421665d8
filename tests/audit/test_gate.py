"""A run's judge is asked about labelled pairs first; below the bar nothing else is asked, above it a report travels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset

import rlaif
from rlaif.api import export
from rlaif.errors import AuditFailed, ConfigError
from rlaif.export.card import MARKER
from rlaif.job import Result
from rlaif.runs import existing_run, read_summary
from tests.labelled import pairs, write


def generate(folder: Path, *, wrong: float = 0.0, n: int = 40, skill: float = 50.0, **more: Any) -> Result:
    gold = write(folder / "gold.jsonl", pairs(n, wrong=wrong))
    models = [
        "models.policy=scripted",
        f"models.judge={{provider: scripted, model: judge, script: {{skill: {skill}}}}}",
    ]
    options: dict[str, Any] = {"audit": gold, "run": "r", "runs_dir": folder, "limit": 6, **more}
    return rlaif.generate("rlaif", set=models, **options)


def test_above_the_bar_the_run_goes_on_and_the_report_goes_with_its_data(tmp_path: Path) -> None:
    result = generate(tmp_path, min_kappa=0.8)
    assert (result.run, result.status, result.summary["records"]) == ("r", "done", 6)
    written = {path.name for path in result.dataset.iterdir()}
    assert {"audit.json", "audit.md", "accuracy.png", "README.md", "preference"} <= written
    assert len(load_dataset(str(result.dataset), "kto", cache_dir=str(tmp_path))) > 0  # reads the card, not the report
    report = json.loads((result.dataset / "audit.json").read_bytes())
    (judge,) = report["judges"]
    assert (report["source"], report["labelled"], judge["kappa"]["value"]) == ("gold.jsonl", 40, 1.0)
    card = (result.dataset / "README.md").read_text()
    assert MARKER in card
    section = (result.dataset / "audit.md").read_text()
    assert section.startswith("## Audit of the judges")
    assert section in card
    assert card.index("## Judges") < card.index(section) < card.index("## Known limits")
    assert str(tmp_path) not in card


def test_a_later_export_keeps_the_report(tmp_path: Path) -> None:
    result = generate(tmp_path)
    before = (result.dataset / "audit.json").read_bytes()
    export("r", runs_dir=tmp_path, set=["export.min_p=0.5"])
    assert (result.dataset / "audit.json").read_bytes() == before
    assert "## Audit of the judges" in (result.dataset / "README.md").read_text()


def test_below_the_bar_nothing_is_generated_and_the_figure_and_its_interval_are_said(tmp_path: Path) -> None:
    with pytest.raises(AuditFailed) as caught:
        generate(tmp_path, wrong=0.4, min_kappa=0.6)
    said = str(caught.value)
    assert "judge has kappa 0." in said
    assert "] with the 40 labels of gold.jsonl (95% interval in brackets), under --min-kappa 0.6" in said
    assert not (tmp_path / "r").exists()
    assert read_summary(existing_run(tmp_path, "r-audit"))["calls"]["sent"] == 80 + 1
    assert "## Audit of the judges" in (tmp_path / "r-audit" / "audit" / "audit.md").read_text()


def test_an_audit_with_failed_items_is_no_audit_and_is_mended_by_a_retry(tmp_path: Path) -> None:
    failing = ["models.judge={provider: scripted, model: judge, script: {skill: 50, error_rate: 0.1}}"]
    gold = write(tmp_path / "gold.jsonl", pairs(40))
    options: dict[str, Any] = {"audit": gold, "run": "r", "runs_dir": tmp_path, "limit": 6, "policy": "scripted"}
    with pytest.raises(AuditFailed, match=r"of its 40 items failed.*rlaif retry r-audit"):
        rlaif.generate("rlaif", set=failing, **options)
    assert not (tmp_path / "r").exists()


def test_a_judge_that_says_nothing_usable_is_below_any_bar(tmp_path: Path) -> None:
    script = "models.judge={provider: scripted, script: {refusal_rate: 1.0}}"
    gold = write(tmp_path / "gold.jsonl", pairs(5))
    with pytest.raises(AuditFailed, match="no kappa with the labels of gold"):
        rlaif.generate(
            "rlaif", audit=gold, min_kappa=-0.9, runs_dir=tmp_path, run="r", set=["models.policy=scripted", script]
        )


def test_the_audit_is_paid_for_once_and_the_run_goes_on_as_ever(tmp_path: Path) -> None:
    first = generate(tmp_path, min_kappa=0.5)
    again = generate(tmp_path, min_kappa=0.5, limit=12)
    assert again.summary["records"] == 12
    assert 0 < again.summary["calls"]["sent"] <= 6 * 4
    assert read_summary(existing_run(tmp_path, "r-audit"))["calls"]["sent"] == 0
    assert first.dataset == again.dataset


def test_it_is_this_pipelines_judge_by_its_principles_and_the_panel_as_it_is_exported(tmp_path: Path) -> None:
    gold = write(tmp_path / "gold.jsonl", pairs(30))
    panel = ["judge.by=[{model: judge}, {model: poor}, {model: worse}]", "export.panel=majority"]
    models = ["policy=scripted", "judge={provider: scripted, model: j, script: {skill: 50.0}}"]
    models += [f"{name}={{provider: scripted, model: {name}, script: {{skill: {skill}.0}}}}" for name, skill in
               (("poor", 50), ("worse", -50))]  # fmt: skip
    settings = [*panel, *(f"models.{model}" for model in models)]
    result = rlaif.generate("rl-cai", audit=gold, min_kappa=0.9, limit=4, runs_dir=tmp_path, run="r", set=settings)
    report = json.loads((result.dataset / "audit.json").read_bytes())
    kappas = {judge["judge"]: judge["kappa"]["value"] for judge in report["judges"]}
    assert kappas["panel (majority)"] == 1.0
    assert kappas["worse"] < 0
    asked = {verdict.principle for record in existing_run(tmp_path, "r-audit").records() for verdict in record.verdicts}
    assert len(asked) > 1  # drawn, as in the run


def test_what_is_wrong_with_the_run_is_said_before_the_audit_is_paid_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="strong_vs_weak"):
        rlaif.generate(
            "rlaif",
            audit=write(tmp_path / "gold.jsonl", pairs(4)),
            policy="scripted",
            judge="scripted",
            runs_dir=tmp_path,
            run="r",
            set=["export.pairs=[strong_vs_weak]"],
        )
    assert not (tmp_path / "r-audit").exists()


def test_a_limit_is_for_both_together(tmp_path: Path) -> None:
    stopped = generate(tmp_path, max_calls=50)
    assert (stopped.run, stopped.status) == ("r-audit", "stopped")
    whole = generate(tmp_path, max_calls=81)
    assert (whole.status, whole.summary["stopped_by"]) == ("stopped", "--max-calls 81 reached by the audit")
    assert not (tmp_path / "r").exists()
    some = generate(tmp_path, max_calls=91)
    assert (some.run, some.status, some.summary["ledger"]["sent"]) == ("r", "stopped", 10)
    assert some.summary["stopped_by"] == "--max-calls 91 reached"
    assert generate(tmp_path, max_calls=400).status == "done"


def test_a_dry_run_foresees_both_and_asks_nothing(tmp_path: Path) -> None:
    result = generate(tmp_path, dry_run=True, min_kappa=0.4)
    assert result.estimate is not None
    assert [(line.stage, line.calls) for line in result.estimate.lines] == [
        ("audit: judge", 80),
        ("sample", 12),
        ("judge", 12),
    ]
    assert result.summary["estimate"]["calls"] == 104
    assert {path.name for path in tmp_path.iterdir()} == {"gold.jsonl"}


def test_a_bar_needs_labels_and_is_a_kappa(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="are for --audit FILE"):
        rlaif.generate("rlaif", min_kappa=0.4, runs_dir=tmp_path, policy="scripted", judge="scripted")
    with pytest.raises(ConfigError, match="--min-kappa 40: a kappa is under 1"):
        generate(tmp_path, min_kappa=40.0)


def test_a_pipeline_without_a_judge_has_nothing_to_audit(tmp_path: Path) -> None:
    gold = write(tmp_path / "gold.jsonl", pairs(2))
    with pytest.raises(ConfigError, match="pipeline 'rlcd' has no judge stage to audit"):
        rlaif.generate("rlcd", audit=gold, policy="scripted", runs_dir=tmp_path, run="r")
