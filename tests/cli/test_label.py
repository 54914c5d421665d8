"""`rlaif label` asks blind, one key a pair, and goes on where it was left."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from rlaif.audit.labels import read_labels, to_label
from rlaif.runs import existing_run
from tests.cli.command import Command, Done
from tests.labelled import pairs, write


@pytest.fixture
def run(rlaif: Command) -> Command:
    prompts = write(rlaif.folder / "pairs.jsonl", pairs(6))
    columns = "prompts.generators=[writer_a,writer_b]"
    rows = [row | {"writer_a": "known-model", "writer_b": "other-model"} for row in pairs(6)]
    write(rlaif.folder / "pairs.jsonl", rows)
    done = rlaif("generate", "rejudge", "--prompts", prompts, "--judge", "scripted", "--run", "r", "--set", columns)
    assert done.code == 0
    return rlaif


def label(run: Command, keys: str, monkeypatch: pytest.MonkeyPatch, *options: str) -> Done:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{key}\n" for key in keys.split())))
    return run("label", "r", *options)


def said(run: Command, annotator: str = "me") -> list[str | None]:
    """What was said of each pair, in the order in which they are shown: of what stood there as A and B."""
    folder = existing_run(run.folder / "runs", "r")
    labels = read_labels(folder)
    found: list[str | None] = []
    for shown in to_label(folder, annotator, 6):
        choice = labels.get(shown.pair, {}).get(annotator)
        sides = {shown.meant("a"): "a", shown.meant("b"): "b"}
        found.append(sides.get(choice, choice) if choice else None)
    return found


def test_every_pair_is_asked_once_and_the_answers_are_kept(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    done = label(run, "a b t s A second", monkeypatch)
    assert done.code == 0
    assert "6 of 6 pairs have your answer" in done.out
    assert "rlaif judge audit --run r" in done.out
    assert said(run) == ["a", "b", "tie", "skipped", "a", "skipped"]


def test_it_goes_on_where_it_was_left(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "2 of 6 pairs have your answer; 4 are left" in label(run, "a b q", monkeypatch).out
    again = label(run, "t", monkeypatch)  # and then the input ends
    assert "pair 3 of 6" in again.out
    assert "pair 1 of 6" not in again.out
    assert "3 of 6" in again.out
    assert said(run) == ["a", "b", "tie", None, None, None]
    assert "pair 1 of 6" in label(run, "q", monkeypatch, "--as", "ann").out


def test_undo_asks_the_pair_before_again(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    done = label(run, "u a b u u t q", monkeypatch)
    assert "nothing to undo" in done.out
    assert said(run) == ["tie", None, None, None, None, None]
    assert done.out.count("pair 1 of 6") == 3  # at first, after "nothing to undo", and after the second undo


def test_nothing_tells_whose_the_responses_are_or_what_the_judge_said(
    run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = label(run, "t t t t t t", monkeypatch).out
    assert "known-model" not in out
    assert "other-model" not in out
    assert not re.search(r"\bp[ (=]|scripted|verdict|principle", out)


def test_another_key_says_which_there_are(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    done = label(run, "x q", monkeypatch)
    assert "keys: a  b  t: equally good" in done.out
    assert said(run) == [None] * 6


def test_a_long_text_is_cut_and_shown_whole_on_demand_and_what_it_holds_is_harmless(
    rlaif: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = "\x1b]52;c;ZXZpbA==\x07[red]" + "\n".join(f"line {i}" for i in range(200)) + " the end"
    path = write(rlaif.folder / "p.jsonl", [{"prompt": "p", "a": a, "b": "short"}])
    rlaif("generate", "rejudge", "--prompts", path, "--judge", "scripted", "--run", "r")
    cut = label(rlaif, "q", monkeypatch).out
    assert "more lines: m" in cut
    assert "the end" not in cut
    whole = label(rlaif, "m q", monkeypatch).out
    assert "line 150" in whole
    assert "the end" in whole
    assert "\x1b" not in whole
    assert r"\x1b]52;c;" in whole
    assert "[red]" in whole


def test_a_torn_line_is_told(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    label(run, "a q", monkeypatch)
    path = run.folder / "runs" / "r" / "labels.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    done = label(run, "b q", monkeypatch)
    assert "the last line of labels.jsonl was not whole" in done.err
    assert said(run)[0] == "b"
    assert len(path.read_text().splitlines()) == 1


def test_labels_become_a_file_on_which_any_judge_is_audited(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "has no labels yet" in run("label", "r", "--write", "mine.jsonl").err
    label(run, "a b t s a q", monkeypatch)
    label(run, "a a t b q", monkeypatch, "--as", "ann")
    done = run("label", "r", "--write", "mine.jsonl")
    assert "5 labelled pairs in mine.jsonl" in done.out
    rows = [json.loads(line) for line in (run.folder / "mine.jsonl").read_text().splitlines()]
    given = {row["prompt"]: (row["a"], row["b"]) for row in pairs(6)}
    assert all(given[row["prompt"]] == (row["a"], row["b"]) for row in rows)
    assert {row["generator_a"] for row in rows} == {"known-model"}
    assert sorted(row["label"] for row in rows).count("tie") >= 1
    assert sum(None in row["annotators"] for row in rows) == 2
    audit = run("judge", "audit", "mine.jsonl", "--judge", "scripted", "--json")
    assert (audit.code, audit.json["labelled"]) == (0, 5), audit.err
    assert len(audit.json["panel"]["annotators"]["raters"]) == 2
    assert "ends with .jsonl" in run("label", "r", "--write", "mine.csv").err


def test_in_a_terminal_a_single_key_answers(run: Command) -> None:
    terminal, inner = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm", "COLUMNS": "80"}
    command = [sys.executable, "-m", "rlaif", "label", "r"]
    process = subprocess.Popen(command, cwd=run.folder, env=environment, stdin=inner, stdout=inner, stderr=inner)
    os.close(inner)
    seen = b""

    def until(text: bytes) -> None:
        nonlocal seen
        deadline = time.monotonic() + 100
        while text not in seen:
            assert time.monotonic() < deadline, seen.decode()
            if select.select([terminal], [], [], 1)[0]:
                seen += os.read(terminal, 65536)
        seen = seen.partition(text)[2]

    try:
        for number, key in ((1, b"a"), (2, b"b"), (3, b"\x1b[A"), (3, b"q")):
            until(f"pair {number} of 6".encode())
            until(b"q: quit")
            while termios.tcgetattr(terminal)[3] & termios.ICANON:  # what came before it waits for a key is dropped
                time.sleep(0.01)
            os.write(terminal, key)
        until(b"2 of 6 pairs have your answer")
        assert process.wait(60) == 0
    finally:
        process.kill()
        os.close(terminal)
    assert said(run)[:3] == ["a", "b", None]
    assert json.loads((run.folder / "runs/r/labels.jsonl").read_text().splitlines()[0])["annotator"] == "me"
