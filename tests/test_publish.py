"""A push makes the hub's dataset the run's own, in one commit; what must not be sent is refused at the door."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

import rlaif
from rlaif.api import export
from rlaif.audit.plots import NAMES
from rlaif.errors import ConfigError, RlaifError, StoreError
from rlaif.publish import PushFailed, files_of, not_sent, push
from rlaif.store import RunFolder, RunLock
from tests.hub_server import TOKEN, Hub, Repo, known_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with known_hub(monkeypatch, tmp_path) as hub:
        yield hub


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    rlaif.generate(policy="scripted", judge="scripted", limit=6, run="demo", runs_dir=runs, set=["revise.rounds=1"])
    return runs


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> RunFolder:
    """A run of its own for each test; times of files and all."""
    return RunFolder(Path(shutil.copytree(made, tmp_path / "runs")), "demo")


def content(folder: RunFolder) -> dict[str, bytes]:
    return {file.path: (folder.dataset / file.path).read_bytes() for file in files_of(folder)}


def on(hub: Hub, branch: str = "main") -> dict[str, bytes]:
    return {path: data for path, data in hub.repos["me/demo"].branches[branch].items() if path != ".gitattributes"}


def test_every_byte_arrives_in_one_commit_in_a_private_repository(hub: Hub, folder: RunFolder) -> None:
    pushed = push(folder, "me/demo")
    assert on(hub) == content(folder)
    assert {path for path in on(hub) if path.endswith(".parquet")} >= {"preference/train-00000-of-00001.parquet"}
    repo = hub.repos["me/demo"]
    assert repo.private
    assert pushed.private
    assert [commit["summary"] for commit in repo.commits] == ["Dataset of run demo"]
    assert pushed.url == f"{hub.url}/datasets/me/demo/commit/{repo.sha('main')}"


def test_a_second_push_sends_what_changed_and_removes_what_is_gone(hub: Hub, folder: RunFolder) -> None:
    push(folder, "me/demo")
    hub.repos["me/demo"].branches["main"]["LICENSE"] = b"mine"
    assert not push(folder, "me/demo").changed
    before = len(hub.stored)
    export("demo", runs_dir=folder.path.parent, set=["export.configs=[sft]"])
    pushed = push(folder, "me/demo", message="Fewer")
    assert on(hub) == content(folder) | {"LICENSE": b"mine"}
    assert {"trl-dpo.yaml", "preference/train-00000-of-00001.parquet"} <= set(pushed.removed)
    second = hub.repos["me/demo"].commits[1]
    assert second["summary"] == "Fewer"
    assert not any(path.endswith(".parquet") for path in second["added"])
    assert len(hub.stored) == before


def test_what_the_export_did_not_write_stays_here(hub: Hub, folder: RunFolder, tmp_path: Path) -> None:
    before = content(folder)
    (folder.dataset / ".env").write_text("KEY=secret")
    (folder.dataset / "dpo").mkdir()
    (folder.dataset / "dpo" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "private.txt").write_text("mine")
    (folder.dataset / "notes").symlink_to(tmp_path / "private.txt")
    push(folder, "me/demo")
    assert on(hub) == before
    assert not_sent(folder) == [".env", "dpo/model.safetensors", "notes"]


def test_pictures_of_an_earlier_audit_go(hub: Hub, folder: RunFolder) -> None:
    push(folder, "me/demo")
    hub.repos["me/demo"].branches["main"] |= dict.fromkeys(NAMES, b"png")
    assert set(push(folder, "me/demo").removed) == set(NAMES)


@pytest.mark.parametrize("branch", ["", "a b", "\x1b[1m", "../x"])
def test_a_branch_that_cannot_be_is_refused_here(hub: Hub, folder: RunFolder, branch: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a branch's name"):
        push(folder, "me/demo", branch=branch)
    assert hub.asked == []


def test_open_to_everyone_only_when_told_so(hub: Hub, folder: RunFolder) -> None:
    assert not push(folder, "me/demo", public=True).private
    assert not hub.repos["me/demo"].private
    with pytest.raises(ConfigError, match="me/demo is open to everyone; say --public"):
        push(folder, "me/demo")
    hub.repos["me/other"] = Repo(private=True)
    with pytest.raises(ConfigError, match="there already, and private"):
        push(folder, "me/other", public=True)
    assert hub.repos["me/other"].commits == []


def test_what_rlaif_did_not_write_is_not_replaced(hub: Hub, folder: RunFolder) -> None:
    hub.repos["me/demo"] = Repo(private=True)
    hub.repos["me/demo"].branches["main"] |= {"README.md": b"# My life's work\n", "data.csv": b"1,2"}
    with pytest.raises(ConfigError, match=r"me/demo holds data\.csv and was not written by rlaif"):
        push(folder, "me/demo")
    del hub.repos["me/demo"].branches["main"]["data.csv"]  # made by hand on the hub, and still empty
    push(folder, "me/demo")
    assert on(hub) == content(folder)


def test_a_branch_is_made_and_a_pull_request_leaves_main_alone(hub: Hub, folder: RunFolder) -> None:
    push(folder, "me/demo", branch="next")
    assert on(hub) == {}
    assert on(hub, "next") == content(folder)
    pushed = push(folder, "me/demo", pull_request=True)
    assert pushed.url.endswith("/discussions/1")
    assert on(hub) == {}
    with pytest.raises(ConfigError, match="leave out one of the two"):
        push(folder, "me/demo", branch="next", pull_request=True)


def test_what_the_hub_finds_in_the_card_is_handed_on(hub: Hub, folder: RunFolder) -> None:
    hub.warning = "empty or missing yaml metadata"
    assert "empty or missing yaml metadata" in push(folder, "me/demo").notices[0]


def test_another_commit_in_between_is_not_overwritten(
    hub: Hub, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(folder, "me/demo")
    export("demo", runs_dir=folder.path.parent, set=["export.configs=[sft]"])
    real = huggingface_hub.HfApi.create_commit

    def late(*arguments: object, **options: object) -> object:
        hub.repos["me/demo"].commits.append({})
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", late)
    with pytest.raises(PushFailed, match="changed by somebody else meanwhile"):
        push(folder, "me/demo")


@pytest.mark.parametrize(
    ("part", "status", "headers", "kind", "said"),
    [
        ("/api/datasets/", 403, {}, ConfigError, "may not write to me/demo"),
        ("/api/repos/create", 403, {}, ConfigError, "may not write to me/demo"),
        ("/commit/", 403, {}, ConfigError, "may not write to me/demo"),
        ("/api/datasets/", 429, {"Retry-After": "60"}, PushFailed, "push again in 60 s"),
        ("/commit/", 500, {}, PushFailed, "the hub answered 500: a planted fault"),
        ("/lfs/", 403, {}, ConfigError, "403: a planted fault"),
        ("/api/validate-yaml", 400, {}, PushFailed, "Invalid metadata in README.md"),
    ],
)
def test_a_refusal_says_what_to_do_and_nothing_was_committed(
    hub: Hub, folder: RunFolder, part: str, status: int, headers: dict[str, str], kind: type[RlaifError], said: str
) -> None:
    hub.faults[part] = (status, headers)
    with pytest.raises(kind, match=said) as raised:
        push(folder, "me/demo")
    assert TOKEN not in str(raised.value)
    assert all(repo.commits == [] for repo in hub.repos.values())


def test_a_wrong_token_and_none(hub: Hub, folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ConfigError, match="does not accept this token") as raised:
        push(folder, "me/demo")
    assert "hf_wrong" not in str(raised.value)
    monkeypatch.delenv("HF_TOKEN")
    asked = len(hub.asked)
    with pytest.raises(ConfigError, match="no token for the Hugging Face hub"):
        push(folder, "me/demo")
    assert len(hub.asked) == asked


def test_no_network_and_a_network_that_is_forbidden(
    hub: Hub, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PushFailed, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        push(folder, "me/demo")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set"):
        push(folder, "me/demo")


@pytest.mark.parametrize(
    "repo", ["demo", "a/b/c", "datasets/me/demo", "me/.demo", "me/a--b", "me/x.git", "m e/x", "me/"]
)
def test_a_name_that_the_hub_would_not_take_is_refused_here(hub: Hub, folder: RunFolder, repo: str) -> None:
    with pytest.raises(ConfigError, match=f"'{repo}' "):
        push(folder, repo)
    assert hub.asked == []


def test_a_dataset_that_is_missing_or_older_than_its_records_has_to_be_exported(folder: RunFolder) -> None:
    part = folder.part_path(0)
    later = (folder.dataset / "README.md").stat().st_mtime_ns + 1
    os.utime(part, ns=(later, later))
    with pytest.raises(
        ConfigError, match="older than its records or their audit; make it anew with: rlaif export demo"
    ):
        files_of(folder)
    export("demo", runs_dir=folder.path.parent)
    assert "README.md" in {file.path for file in files_of(folder)}
    folder.dataset.rename(folder.path / "elsewhere")
    with pytest.raises(ConfigError, match="no dataset yet; make it with: rlaif export demo"):
        files_of(folder)


def test_a_run_that_is_being_written_is_not_pushed(hub: Hub, folder: RunFolder) -> None:
    with RunLock(folder), pytest.raises(StoreError, match="is being written"):
        push(folder, "me/demo")
    assert hub.asked == []
