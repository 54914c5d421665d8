"""`list`, `copy`, `constitution`, `journal`, `--version`: what ships with rlaif, and what it keeps."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from io import StringIO

import pytest

from rlaif.version import __version__
from tests.cli.command import Command, start


def test_the_version_is_that_of_the_package(rlaif: Command) -> None:
    done = rlaif("--version")
    assert (done.code, done.out) == (0, f"rlaif {__version__}\n")
    assert version("rlaif-kit") == __version__


def test_it_runs_as_a_module_too(rlaif: Command) -> None:
    process = start(rlaif.folder, ["--version"])
    assert process.communicate(timeout=100)[0] == f"rlaif {__version__}\n"


def test_the_list_names_what_ships_and_the_runs_there_are(rlaif: Command) -> None:
    out = rlaif("list").out
    assert re.search(
        r"^  delta +Delta learning: a strong model's answer against a weak model's; no judge\.$", out, re.M
    )
    assert re.search(r"^  safety\.zh +The Chinese counterpart of safety\.yaml", out, re.M)
    assert "data: borderline, helpful, redteam" in out
    rlaif.generate()
    (rlaif.folder / "runs/odd").mkdir()
    (rlaif.folder / "runs/odd/run.yaml").write_text("")
    (rlaif.folder / "runs/broken").mkdir()
    (rlaif.folder / "runs/broken/run.yaml").write_text("")
    (rlaif.folder / "runs/broken/summary.json").write_text("{")
    out = rlaif("list").out
    assert re.search(r"  first: done, 3 records, \d pairs", out)
    assert "  odd: unfinished" in out
    assert "  broken: its summary.json cannot be read" in out


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("safety", "safety.yaml"),
        ("pipelines/cai", "cai.yaml"),
        ("critique", "critique.jinja"),
        ("borderline", "borderline.jsonl"),
    ],
)
def test_a_bundled_file_is_copied_to_be_edited(rlaif: Command, name: str, file: str) -> None:
    done = rlaif("copy", name)
    assert done.code == 0
    assert file in done.out
    assert (rlaif.folder / file).stat().st_size > 100


def test_a_gguf_file_becomes_a_hugging_face_folder(rlaif: Command) -> None:
    for weights, dtype, said in [
        ("none.gguf", "float32", "no file"),
        ("local", "int4", "unknown dtype 'int4'; known: f"),
    ]:
        done = rlaif("convert", weights, "model", "--dtype", dtype)
        assert done.code == 2
        assert said in done.err
    assert not (rlaif.folder / "model").exists()


def test_a_copied_pipeline_is_used_by_its_file_name(rlaif: Command) -> None:
    rlaif("copy", "cai")
    path = rlaif.folder / "cai.yaml"
    path.write_text(path.read_text().replace("n: 2", "n: 3"))
    assert "at most" in rlaif.generate("cai.yaml").err
    assert rlaif("show", "first").code == 0


def test_a_constitution_is_checked_and_shown(rlaif: Command) -> None:
    done = rlaif("constitution", "check", "safety")
    assert done.code == 0
    assert re.search(r"safety: valid; 'safety' \S+, \d+ principles", done.out)
    shown = rlaif("constitution", "show", "general", columns=60)
    assert shown.code == 0
    assert "critique: " in shown.out
    assert max(map(len, shown.out.splitlines())) <= 60


def test_the_journal_tells_its_size_and_forgets_what_it_is_told_to(rlaif: Command) -> None:
    sent = rlaif.generate("--json").json["calls"]["sent"]
    size = rlaif("journal", "size").out
    assert f"{sent - 1:,} calls, 0 failed" in size  # less the preflight's
    assert rlaif("journal", "prune", "--failed", "--yes").out == "0 answers forgotten\n"
    assert rlaif("journal", "prune", "--older-than", "1h", "--yes").out == "0 answers forgotten\n"
    assert "no answers of a model 'other'" in rlaif("journal", "prune", "--model", "other", "--yes").err
    everything = re.search(r"\n  (\S+): [\d,]+ calls", size)
    assert everything
    forgotten = rlaif("journal", "prune", "--model", everything[1], "--yes")
    assert forgotten.out == f"{sent - 1:,} answers forgotten\n"
    assert rlaif.generate("--json", "--rebuild").json["calls"]["sent"] == sent  # it is met again too


def test_nothing_is_forgotten_without_a_yes(rlaif: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    rlaif.generate()
    monkeypatch.setattr("sys.stdin", StringIO())
    done = rlaif("journal", "prune", "--older-than", "0h")
    assert done.code == 130
    assert "Forget answers older than 0h?" in done.out + done.err
    assert rlaif("journal", "prune", "--yes").code == 2, "everything is never meant"
    assert "calls, 0 failed" in rlaif("journal", "size").out


def test_nothing_is_forgotten_under_a_run_that_is_under_way(rlaif: Command) -> None:
    rlaif.generate()
    reading = (
        "import sqlite3, sys; file = sqlite3.connect(sys.argv[1]); "
        "file.execute('SELECT 1 FROM calls'); print(); input()"
    )
    command = [sys.executable, "-c", reading, str(rlaif.folder / "runs" / "calls.sqlite")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        done = rlaif("journal", "prune", "--failed", "--yes")
        other.communicate(b"\n")
    assert done.code == 1
    assert "is in use" in done.err


def test_a_reader_that_has_seen_enough_gets_no_traceback(rlaif: Command) -> None:
    process = start(rlaif.folder, ["generate", "--help"])
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    process.wait()
    process.stderr.close()
