"""A report for people and programs: lines, JSON, a page that loads nothing and believes no text of the data."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.lint.contract import Contract, contract
from rlaif.lint.page import marked, page, visible
from rlaif.lint.report import as_json
from rlaif.lint.text import lines
from tests.lint.made import Row, lint, pair, text_pair, turns

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'`&\u202e"


def evil(i: int) -> Row:
    """Rows that break rules, so that their texts are shown."""
    said = turns(EVIL, first="assistant")
    return pair(i, prompt=turns(EVIL), chosen=said, rejected=said, category=EVIL if i % 2 else "<b>plain</b>")


class Tags(HTMLParser):
    """Every tag with its attributes, and what was not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "path", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_loads_and_runs_nothing_and_shows_texts_as_text(tmp_path: Path) -> None:
    report = lint(tmp_path, [evil(i) for i in range(40)])
    text = page(report)
    tags = Tags(text)
    assert tags.open == []
    names = {name for name, _ in tags.tags}
    assert names.isdisjoint({"script", "img", "link", "iframe", "object", "b>"})
    for _, attributes in tags.tags:
        assert not {"src", "href", "srcset", "onerror", "onclick"} & attributes.keys()
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "\u202e" not in text
    assert "\\u202e" in text


def test_the_page_has_every_finding_both_histograms_and_all_forms(tmp_path: Path) -> None:
    rows = [text_pair(i, chosen=f"- **Elm** number {i}, https://example.org") for i in range(50)]
    report = lint(tmp_path, [*rows, text_pair(60, chosen="")])
    text = page(report)
    assert report.findings
    for finding in report.findings:
        assert finding.rule in text
    assert text.count('class="area-') == 2
    assert "list items" in text
    assert 'style="width: 98.04%"' in text
    assert "prefers-color-scheme: dark" in text


def test_a_clean_dataset_and_one_of_single_answers_have_pages_too(tmp_path: Path) -> None:
    assert "No rule found anything." in page(lint(tmp_path, [pair(i) for i in range(4)]))
    rows = [{"prompt": turns("Where does it grow?"), "completion": turns(f"In wood {i}.", first="assistant")}
            for i in range(4)]  # fmt: skip
    report = lint(tmp_path, rows)
    assert Tags(page(report)).open == []
    assert page(report).count('class="area-') == 1


@given(st.text())
def test_marked_words_are_escaped(text: str) -> None:
    assert set(re.findall(r"<[^>]*>", marked(text))) <= {"<code>", "</code>"}
    assert visible(text).isprintable() or set(visible(text)) - {"\n", "\t"}


def test_json_has_all_figures_under_a_format(tmp_path: Path) -> None:
    report = lint(tmp_path, [*[pair(i) for i in range(10)], evil(1)])
    dataset = json.loads(as_json(report))
    assert dataset["format"] == 1
    assert dataset["rows"] == 11
    assert dataset["splits"] == {"train": 11}
    assert dataset["lengths"]["longer"]["n"] == 11
    finding = next(one for one in dataset["findings"] if one["rule"] == "identical")
    assert finding["count"] == 1
    assert finding["level"] == "error"
    assert finding["share"]["low"] < 1 / 11 < finding["share"]["high"]
    assert finding["rows"][0]["place"] == "train row 11"
    assert finding["rows"][0]["chosen"] == EVIL


def test_what_utf8_cannot_write_is_written_as_a_question_mark(tmp_path: Path) -> None:
    report = lint(tmp_path, [pair(0), pair(1, prompt=turns("\ud800"))])
    assert json.loads(as_json(report))["findings"]
    assert page(report).encode(errors="strict")


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, width: int) -> None:
    rows = [text_pair(i, chosen=f"- **Elm** {i}", category="x" * 80) for i in range(50)]
    report = lint(tmp_path, [*rows, text_pair(60, chosen="", category="y")], rules=())
    for line, _ in lines(report, width):
        assert len(line) <= width or " " not in line.strip()  # a path


def test_the_contract_is_read_from_an_installed_trl_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "trl" / "trainer"
    package.mkdir(parents=True)
    (tmp_path / "trl" / "__init__.py").write_text("raise ImportError('imported')")
    (package / "dpo_config.py").write_text(
        "class DPOConfig:\n    max_length: int | None = field(\n        default=2048, metadata={})\n"
    )
    (tmp_path / "trl-9.9.0.dist-info").mkdir()
    (tmp_path / "trl-9.9.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: trl\nVersion: 9.9.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "trl", raising=False)  # another test may have imported the real one
    found = contract()
    assert found == Contract("9.9.0", 2048)
    assert str(found) == "TRL 1.16's rules; 9.9.0 is installed"
    (package / "dpo_config.py").write_text("max_length = ")
    assert contract() == Contract("9.9.0")
    assert str(Contract()) == "TRL 1.16's rules; none is installed"
