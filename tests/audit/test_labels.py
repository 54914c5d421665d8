"""People's labels: everyone is shown the same pairs, and every answer is on disk once it is given."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

import rlaif
from rlaif.audit.labels import LabelFile, label_of, read_labels, to_label
from rlaif.errors import ConfigError
from rlaif.runs import existing_run
from rlaif.store import RunFolder
from tests.labelled import pairs, write


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    prompts = write(tmp_path / "pairs.jsonl", pairs(60))
    rlaif.generate("rejudge", prompts=prompts, judge="scripted", runs_dir=tmp_path, run="r")
    return existing_run(tmp_path, "r")


def lines(folder: RunFolder) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder.path / "labels.jsonl").read_text().splitlines()]


def test_everyone_sees_the_same_pairs_in_the_same_order_and_more_of_them_go_on(folder: RunFolder) -> None:
    ann, bob = to_label(folder, "ann", 30), to_label(folder, "bob", 30)
    assert [shown.pair for shown in ann] == [shown.pair for shown in bob]
    assert ann == to_label(folder, "ann", 60)[:30]
    in_order = [record.id for record in folder.records()]
    places = [in_order.index(shown.pair[0]) for shown in ann]
    assert places != sorted(places)
    assert max(places) > 40


def test_which_one_is_a_is_chance_and_each_annotators_own(folder: RunFolder) -> None:
    ann, bob = (Counter(shown.swapped for shown in to_label(folder, name, 60)) for name in ("ann", "bob"))
    assert 15 < ann[True] < 45
    both = zip(to_label(folder, "ann", 60), to_label(folder, "bob", 60), strict=True)
    assert 15 < sum(one.swapped != other.swapped for one, other in both) < 45
    assert bob.total() == 60


def test_what_is_meant_is_the_response_that_was_shown(folder: RunFolder) -> None:
    texts = {record.id: [response.text for response in record.responses] for record in folder.records()}
    for shown in to_label(folder, "ann", 20):
        a = texts[shown.pair[0]].index(shown.a)
        assert shown.meant("a") == ("first", "second")[a]
        assert shown.meant("b") == ("second", "first")[a]


def test_an_answer_is_a_line_on_disk_at_once(folder: RunFolder) -> None:
    file = LabelFile(folder, "ann")
    first, second, *_ = (shown.pair for shown in to_label(folder, "ann", 2))
    file.add(first, "second")
    (line,) = lines(folder)
    assert list(line) == ["record", "first", "second", "label", "annotator", "time"]
    assert (line["record"], line["first"], line["second"]) == first
    assert (line["label"], line["annotator"]) == ("second", "ann")
    file.add(second, "tie")
    assert LabelFile(folder, "ann").said() == {first: "second", second: "tie"}
    assert LabelFile(folder, "bob").said() == {}


def test_the_last_answer_counts_and_what_was_taken_back_does_not(folder: RunFolder) -> None:
    file = LabelFile(folder, "ann")
    first, second = (shown.pair for shown in to_label(folder, "ann", 2))
    for pair, choice in ((first, "first"), (second, "tie"), (first, "undone"), (second, "undone"), (second, "second")):
        file.add(pair, choice)  # type: ignore[arg-type]
    assert read_labels(folder) == {second: {"ann": "second"}}
    file.add(first, "undone")  # of nothing
    assert len(lines(folder)) == 6


def test_a_torn_last_line_is_dropped_and_the_next_answer_is_whole(folder: RunFolder) -> None:
    pair = to_label(folder, "ann", 1)[0].pair
    LabelFile(folder, "ann").add(pair, "first")
    path = folder.path / "labels.jsonl"
    path.write_bytes(path.read_bytes() + path.read_bytes()[:40])
    assert read_labels(folder) == {pair: {"ann": "first"}}
    file = LabelFile(folder, "ann")
    assert file.mended
    file.add(pair, "tie")
    assert [line["label"] for line in lines(folder)] == ["first", "tie"]
    assert not LabelFile(folder, "ann").mended


def test_a_broken_line_in_the_middle_is_named(folder: RunFolder) -> None:
    (folder.path / "labels.jsonl").write_text('{"record": 3}\n')
    with pytest.raises(ConfigError, match=r"labels\.jsonl:1: no label as `rlaif label` writes it"):
        read_labels(folder)


def test_the_audit_reads_a_skipped_pair_as_not_labelled() -> None:
    assert [label_of(choice) for choice in ("first", "second", "tie")] == [1.0, 0.0, 0.5]  # type: ignore[arg-type]
    assert label_of("skipped") != label_of("skipped")  # nan


def test_only_pairs_that_a_judge_compared_are_shown_and_none_of_equal_texts(tmp_path: Path) -> None:
    script = "{provider: scripted, script: {words: 3}}"
    rlaif.generate(
        "cai",
        limit=6,
        runs_dir=tmp_path,
        run="r",
        set=[f"models.policy={script}", f"models.judge={script}", "judge.comparisons=[revisions]", "export.pairs=[]"],
    )
    folder = existing_run(tmp_path, "r")
    judged = {(record.id, v.first, v.second) for record in folder.records() for v in record.verdicts}
    assert {shown.pair for shown in to_label(folder, "me", 99)} == judged
    assert all(shown.a != shown.b for shown in to_label(folder, "me", 99))


def test_a_run_without_pairs_says_so(tmp_path: Path) -> None:
    settings = ["sample.n=1", "sample.temperatures=[0]"]
    rlaif.generate("rlaif", limit=2, policy="scripted", judge="scripted", runs_dir=tmp_path, run="r", set=settings)
    with pytest.raises(ConfigError, match="run 'r' has no pairs to label"):
        to_label(existing_run(tmp_path, "r"), "me", 5)
