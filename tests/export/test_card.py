"""The card is a page that the hub takes, says what is known, and holds no word that could act on its reader."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt

from rlaif.export import About, ExportSettings, export_dataset
from rlaif.export.card import card, documents
from rlaif.export.markup import code, fenced, folded, table
from rlaif.export.mix import Mix
from rlaif.export.origin import SPENT_BEGINS, SPENT_ENDS
from rlaif.export.pairs import Pair
from rlaif.types import Record
from tests.export.made import record, run

EVIL = (
    'a`<script>alert(1)</script>|\n```\n</details><img src=x onerror="alert(1)">\n~~~\n\n'
    "# Heading\n[x](javascript:alert(1))\x1b[31m"
)
LINE: dict[str, Any] = {
    "stage": "judge",
    "model": "judge",
    "day": "2026-11-21",
    "sent": 1200,
    "failed": 3,
    "prompt_tokens": 4_000_000,
    "cached_tokens": 0,
    "completion_tokens": 1200,
    "written_tokens": 0,
    "cost_usd": 1.25,
}
FUNNEL = {
    "responses": 240,
    "revisions": 60,
    "responses_dropped": {"repetition": 4, "refusal": 9},
    "verdicts": {"ok": 55, "unparsed": 5},
    "scores": {},
}
ABOUT = About(
    run="demo",
    constitution_name="safety",
    constitution_version="1.0",
    licence="Apache-2.0",
    language="zh_Hans",
    models={"policy": "small", "judge": "judge"},
    prompts="redteam",
    pipeline="cai",
    stages=("sample", "revise", "judge"),
    constitution_hash="c0ffee",
    constitution="name: safety\n",
    settings="name: cai\n",
    identities={"judge": "judge@2026-10"},
    templates={"judge_pairwise": "--- user\nWhich is better?"},
    templates_hash="beef",
    counted={"records": 60, "duplicate_prompts": 2, "funnel": FUNNEL, "ledger": {"lines": [LINE]}},
    versions={"rlaif": "9.9", "pyarrow": "1.0"},
)


def written(folder: Path, about: About = ABOUT, settings: ExportSettings | None = None) -> str:
    export_dataset(run(60), folder, settings or ExportSettings(), about=about)
    return (folder / "README.md").read_text()


def page(text: str) -> str:
    return str(MarkdownIt("commonmark", {"html": True}).enable("table").render(text.split("---\n", 2)[2]))


def test_nothing_that_users_named_or_wrote_leaves_its_place_on_the_page(tmp_path: Path) -> None:
    names = ("run", "constitution_name", "constitution_version", "licence", "prompts", "pipeline", "constitution_hash")
    texts = dict.fromkeys((*names, "constitution", "settings"), EVIL)
    about = replace(
        ABOUT,
        **texts,  # type: ignore[arg-type]
        stages=(EVIL, "judge"),
        models={EVIL: EVIL},
        identities={EVIL: EVIL},
        templates={EVIL: EVIL},
        versions={"rlaif": EVIL},
        counted={"funnel": {"verdicts": {EVIL: 1}}, "ledger": {"lines": [LINE | {"model": EVIL}]}},
    )
    made = [one.having(category=EVIL) for one in run(60)()]
    export_dataset(lambda: made, tmp_path / "dataset", ExportSettings(), about=about)
    text = (tmp_path / "dataset" / "README.md").read_text()
    html = page(text)
    assert "<script" not in html
    assert "<img" not in html
    assert 'javascript:alert(1)"' not in html
    assert html.count("<details>") == html.count("</details>") == 3
    assert len(re.findall("<h1>", html)) == 1
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
    assert yaml.safe_load(text.split("---\n")[1])["pretty_name"].isprintable()
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| ") and "a'" in line}
    assert widths <= {3, 4, 5, 6, 7, 8, 12}


@pytest.mark.parametrize("text", ["", "`", "```", "a ```` b", "\n\n", "~~~"])
def test_a_fence_is_longer_than_what_it_holds(text: str) -> None:
    tokens = MarkdownIt("commonmark").parse(fenced(text, "yaml") + "after")
    assert [token.type for token in tokens] == ["fence", "paragraph_open", "inline", "paragraph_close"]
    assert tokens[0].content.strip("\n") == text.strip("\n")
    assert code("a\n`|b") == "`a '/b`"
    assert page("---\n---\n" + folded("More", fenced("x"))).count("<summary>More</summary>") == 1
    assert table(("a", "b"), [("c", "1")], numbers=1) == "| a | b |\n|---|---:|\n| c | 1 |\n"


def test_the_front_matter_is_what_the_hub_knows(tmp_path: Path) -> None:
    data = DatasetCard(written(tmp_path / "dataset")).data.to_dict()
    assert data["license"] == "apache-2.0"
    assert data["language"] == ["zh"]
    assert data["size_categories"] == ["n<1K"]
    assert data["task_categories"] == ["text-generation"]
    assert "rlaif" in data["tags"]
    assert [config["config_name"] for config in data["configs"]] == ["preference", "sft", "kto", "reward", "prompts"]
    other = DatasetCard(written(tmp_path / "other", replace(ABOUT, licence="LicenseRef My Own", language="x"))).data
    assert (other.license, other.to_dict()["license_name"], other.language) == ("other", "licenseref-my-own", None)


def test_the_way_from_prompts_to_pairs_is_counted(tmp_path: Path) -> None:
    text = written(tmp_path / "dataset")
    rows = ["| prompts |  | 62 |", "| left out | `said before` | 2 |", "| records | `ok` | 60 |"]
    rows += ["| responses |  | 240 |", "| of them | `revisions` | 60 |", "| response dropped | `refusal` | 9 |"]
    rows += ["| response dropped | `repetition` | 4 |", "| verdicts | `ok` | 55 |", "| verdicts | `unparsed` | 5 |"]
    rows += ["| pairs | `best_vs_worst` | 60 |"]
    places = [text.index(row) for row in rows]
    assert places == sorted(places)


def test_how_it_was_made_is_said_with_names_hashes_and_texts(tmp_path: Path) -> None:
    text = written(tmp_path / "dataset")
    assert "constitution: `safety`, version `1.0`, hash `c0ffee`" in text
    assert "| `judge` | `judge` | `judge@2026-10` |" in text
    assert "| `p` | 60 |" in text  # the principle's row
    assert "```yaml\nname: cai\n```" in text
    assert "```jinja\n--- user\nWhich is better?\n```" in text
    assert (tmp_path / "dataset" / "constitution.yaml").read_text() == "name: safety\n"
    assert (tmp_path / "dataset" / "pipeline.yaml").read_text() == "name: cai\n"
    assert json.loads((tmp_path / "dataset" / "summary.json").read_text())["dataset"]["pairs"] == 60
    assert "`rlaif show demo ID`" in text
    bare = About("demo", "safety", "1.0")
    assert documents(export_dataset(run(1), tmp_path / "bare", ExportSettings(), about=bare), bare) == {}


def test_a_cost_that_is_not_known_is_called_unknown(tmp_path: Path) -> None:
    assert "| `judge` | 1,200 | 3 | 4,000,000 | 1,200 | 1.25 |" in written(tmp_path / "known")
    lines = [LINE, LINE | {"day": "2026-11-22", "cost_usd": None}, LINE | {"model": "policy"}]
    text = written(tmp_path / "unknown", replace(ABOUT, counted={"ledger": {"lines": lines}}))
    assert "| `judge` | 2,400 | 6 | 8,000,000 | 2,400 | unknown |" in text
    assert "| `policy` | 1,200 | 3 | 4,000,000 | 1,200 | 1.25 |" in text
    assert "together: unknown US dollars" in text


def test_only_cost_and_versions_tell_two_exports_of_the_same_records_apart(tmp_path: Path) -> None:
    one = written(tmp_path / "one")
    later = replace(ABOUT, versions={"rlaif": "10.0"}, counted=ABOUT.counted | {"ledger": {"lines": [LINE, LINE]}})
    other = written(tmp_path / "other", later)
    assert one != other
    apart = re.compile(re.escape(SPENT_BEGINS) + ".*?" + re.escape(SPENT_ENDS), re.S)
    assert apart.sub("", one) == apart.sub("", other)


def refusing(category: str | None, number: int, refuses: bool) -> tuple[Record, list[Pair]]:
    said = "I'm sorry, but I can't help with that." if refuses else "Boil the eggs for nine minutes, then cool them."
    made = record(["Eggs are boiled in water.", said], prompt=f"{category} {number}", category=category)
    return made, [Pair(1, 0, 0.5, 0.75, "best_vs_worst")]


def test_refusals_and_categories_are_counted_the_same_in_any_order() -> None:
    made = [refusing("eggs" if i % 3 else "milk", i, i % 4 == 0) for i in range(60)]
    mix = Mix()
    for one in made:
        mix.add(*one)
    assert dict(mix.categories) == {"eggs": 40, "milk": 20}
    assert (mix.chosen.refusals, mix.chosen.n) == (15, 60)
    shuffled = Mix()
    for one in random.Random(1).sample(made, 60):
        shuffled.add(*one)
    assert (shuffled.chosen, list(shuffled.categories)) == (mix.chosen, ["eggs", "milk"])
    without = Mix()
    without.add(*refusing(None, 0, True))
    assert (without.categories, without.chosen.refusals, without.chosen.n) == ({}, 1, 1)


def test_of_many_pairs_a_part_is_looked_at_for_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    monkeypatch.setattr("rlaif.hygiene.refusing.is_refusal", lambda text: bool(looked.append(text)))
    made = [refusing("eggs", i, False) for i in range(200)]
    mix = Mix()
    for i in range(100_000):
        one, pairs = made[i % 200]
        mix.add(one.having(id=f"{i:x}"), pairs)
    assert mix.chosen.n == 1024
    assert len(looked) < 20_000
    assert mix.categories == {"eggs": 100_000}


def test_what_is_not_known_is_not_in_the_card(tmp_path: Path) -> None:
    summary = export_dataset(run(5), tmp_path / "dataset", ExportSettings(), about=About("demo", "safety", "1.0"))
    text = card(summary, ExportSettings(), About("demo", "safety", "1.0"), dict.fromkeys(summary.rows, "0"))
    for absent in ("## Cost", "<details>", "license", "hash", "identity", "| responses |", "None"):
        assert absent not in text
