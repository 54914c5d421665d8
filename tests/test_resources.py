"""Bundled files are found by name, never mistaken for somebody else's, and copied without overwriting."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlaif import resources
from rlaif.errors import ConfigError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like site-packages, with our package in it and nothing bundled yet."""
    package = tmp_path / "site" / "rlaif"
    package.mkdir(parents=True)
    monkeypatch.setattr(resources, "PACKAGE", package)
    return package.parent


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def test_a_bundled_name_is_found_with_and_without_its_suffix(here: Path) -> None:
    path = resources.find("constitutions", "safety")
    assert path == resources.find("constitutions", "safety.yaml")
    assert path.name == "safety.yaml"
    assert path.is_absolute()


def test_every_kind_is_bundled_and_every_name_is_found(here: Path) -> None:
    for kind in resources.SUFFIX:
        assert resources.names(kind) == sorted(resources.names(kind))
        assert all(resources.find(kind, name).is_file() for name in resources.names(kind))
    assert {"safety", "general"} <= set(resources.names("constitutions"))
    assert {"redteam", "borderline", "helpful"} <= set(resources.names("data"))


def test_a_file_of_the_given_name_wins_over_the_bundled_one(here: Path) -> None:
    mine = put(here / "safety.yaml")
    assert resources.find("constitutions", "safety.yaml").samefile(mine)
    assert not resources.find("constitutions", "safety").samefile(mine)
    put(here / "safety")
    assert resources.find("constitutions", "safety").samefile(here / "safety")
    assert resources.find("constitutions", mine) == mine


def test_a_folder_of_the_given_name_does_not_count(here: Path) -> None:
    (here / "redteam").mkdir()
    assert resources.find("data", "redteam").name == "redteam.jsonl"


def test_an_unknown_name_lists_the_known_ones_and_offers_a_close_one(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"no constitution 'saftey'; did you mean 'safety'\?; bundled: .*general"):
        resources.find("constitutions", "saftey")
    with pytest.raises(ConfigError, match=r"no prompt set 'my/own.csv'; bundled: .*redteam.*; or give the path"):
        resources.find("data", "my/own.csv")


@pytest.mark.parametrize("name", ["", ".", "..", "../README.md", "../data/redteam", "/", "a\0b", "x" * 5000])
def test_no_name_escapes_from_its_folder(here: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="no constitution"):
        resources.find("constitutions", name)
    with pytest.raises(ConfigError, match="nothing bundled"):
        resources.copy(name)


def test_what_is_in_the_package_comes_before_the_checkout(installed: Path) -> None:
    put(installed / "pyproject.toml", '[project]\nname = "rlaif-kit"\n')
    put(installed / "data" / "mine.jsonl")
    assert resources.names("data") == ["mine"]
    shipped = put(installed / "rlaif" / "bundled" / "data" / "mine.jsonl")
    assert resources.find("data", "mine") == shipped


@pytest.mark.parametrize("pyproject", [None, '[project]\nname = "other"\n', "", "not [ toml", "\x00"])
def test_the_data_folder_of_another_package_is_left_alone(installed: Path, pyproject: str | None) -> None:
    put(installed / "data" / "theirs.jsonl")
    if pyproject is not None:
        put(installed / "pyproject.toml", pyproject)
    assert resources.names("data") == []
    with pytest.raises(ConfigError, match="bundled: none"):
        resources.find("data", "theirs")


def test_a_copy_is_equal_and_is_then_the_one_that_is_found(here: Path) -> None:
    target = resources.copy("safety", "constitutions")
    assert target.read_bytes() == resources.find("constitutions", "safety").read_bytes()
    assert resources.find("constitutions", "safety.yaml").samefile(here / "safety.yaml")


def test_a_copy_never_overwrites(here: Path) -> None:
    put(here / "safety.yaml", "mine")
    with pytest.raises(ConfigError, match=r"safety\.yaml is there already"):
        resources.copy("constitutions/safety.yaml")
    assert (here / "safety.yaml").read_text() == "mine"


def test_a_copy_to_a_folder_that_is_not_there_says_so(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot write none/safety\.yaml: No such file"):
        resources.copy("safety", to_folder=Path("none"))


def test_a_name_of_two_kinds_must_be_said_in_full(installed: Path, here: Path) -> None:
    for kind in ("constitutions", "pipelines"):
        put(installed / "rlaif" / "bundled" / kind / "cai.yaml", kind)
    with pytest.raises(ConfigError, match="say constitutions/cai or pipelines/cai"):
        resources.copy("cai")
    assert resources.copy("pipelines/cai").read_text() == "pipelines"
    assert resources.copy("cai", "constitutions", here.parent).read_text() == "constitutions"


def test_a_file_in_a_folder_of_a_kind_is_named_with_the_folder_and_copied_without(here: Path) -> None:
    assert "zh/critique" in resources.names("prompts")
    assert resources.copy("zh/critique") == resources.copy("prompts/zh/revise").with_name("critique.jinja")
    assert (here / "critique.jinja").read_bytes() == resources.bundled("prompts", "zh/critique").read_bytes()


def test_a_copy_of_an_unknown_name_offers_a_close_one(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'redteam'\?; there are: constitutions/.*general"):
        resources.copy("red-team")
