"""`push`: a dry run lists and sends nothing, a push says where the dataset is, and no key is ever shown."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import Command
from tests.hub_server import TOKEN, Hub, known_hub, serving


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with known_hub(monkeypatch, tmp_path) as hub:
        yield hub


def test_a_dry_run_lists_the_files_and_needs_no_token(
    rlaif: Command, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    rlaif.generate()
    monkeypatch.delenv("HF_TOKEN")
    done = rlaif("push", "first", "me/demo", "--dry-run", "--branch", "next")
    assert done.code == 0
    files = [path for path in (rlaif.folder / "runs/first/dataset").rglob("*") if path.is_file()]
    listed = [line.split()[0] for line in done.out.splitlines()[: len(files)]]
    assert listed == sorted(path.relative_to(rlaif.folder / "runs/first/dataset").as_posix() for path in files)
    assert f"{len(files)} files, " in done.out
    assert "for the dataset me/demo (private), branch next; nothing was sent" in done.out
    assert "rlaif lint runs/first/dataset" in done.out
    assert done.err == ""
    rlaif.write("runs/first/dataset/.e\x1b[1mnv", "KEY=secret")
    again = rlaif("push", "first", "me/demo", "--dry-run", "--pr")
    assert again.err == "in the folder, but not written by rlaif, and not sent: .e\\x1b[1mnv\n"
    assert "nv" not in again.out
    assert "(private), as a pull request; nothing was sent" in again.out
    both = rlaif("push", "first", "me/demo", "--dry-run", "--pr", "--branch", "next")
    assert (both.code, "leave out one of the two" in both.err) == (2, True)
    assert hub.asked == []


def test_a_push_says_what_went_where_and_a_second_one_that_nothing_changed(rlaif: Command, hub: Hub) -> None:
    rlaif.generate()
    hub.warning = "\x1b[31mno task"
    done = rlaif("push", "first", "me/demo", "--message", "First")
    assert done.code == 0
    assert f"{hub.url}/datasets/me/demo/commit/" in done.out
    assert 'private; read it with: datasets.load_dataset("me/demo", "preference")' in done.out
    assert "the hub says:" in done.err
    assert "\\x1b[31mno task" in done.err
    assert TOKEN not in done.out + done.err
    assert hub.repos["me/demo"].commits[0]["summary"] == "First"
    assert "me/demo has all of it already; nothing was changed" in rlaif("push", "first", "me/demo").out


def test_a_refusal_is_one_line_with_the_way_out(rlaif: Command, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    rlaif.generate()
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    done = rlaif("push", "first", "me/demo")
    assert done.code == 2
    assert done.err.startswith("rlaif: the hub does not accept this token (401")
    assert len(done.err.splitlines()) == 1
    assert "hf_wrong" not in done.out + done.err
    assert rlaif("push", "first", "demo").err.startswith("rlaif: 'demo' is no dataset of the hub; write OWNER/NAME")
    assert rlaif("push", "other", "me/demo").code == 2


def test_a_process_of_its_own_takes_hub_and_token_from_its_environment(rlaif: Command) -> None:
    rlaif.generate()
    with serving() as hub:
        environment = os.environ | {
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(rlaif.folder / "home"),
            "HF_TOKEN": TOKEN,
        }
        command = [sys.executable, "-m", "rlaif", "push", "first", "me/demo", "--public"]
        done = subprocess.run(command, cwd=rlaif.folder, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "public; read it with" in done.stdout
    assert not hub.repos["me/demo"].private
    assert TOKEN not in done.stdout
