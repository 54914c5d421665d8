"""`rlaif constitution`: what it prints fits a terminal and a pipe, and its exit codes fit a check before a merge."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rlaif.authoring.schema import as_file
from rlaif.authoring.yaml_file import to_yaml
from rlaif.constitution import Constitution, Principle, load_constitution
from tests.authoring.texts import SOURCES, of, sound
from tests.cli.command import Command

VAGUE = Principle(
    id="vague", judge="Prefer the better response.", critique="Find prose in it.", revision="Rewrite it in verse."
)


def keep(rlaif: Command, constitution: Constitution, name: str = "mine.yaml") -> str:
    return rlaif.write(name, to_yaml(constitution))


def test_a_constitution_is_checked_and_shown(rlaif: Command) -> None:
    done = rlaif("constitution", "check", "safety")
    assert (done.code, done.err) == (0, "")
    assert "safety: valid; 'safety' 1.0, 20 principles" in done.out
    shown = rlaif("constitution", "show", keep(rlaif, sound(Principle(id="odd", judge="Prefer [red] and :smile:."))))
    assert "short-answers, weight 1" in shown.out
    assert "judge: Prefer [red] and :smile:." in shown.out


def test_lint_prints_principles_with_their_shares_and_says_that_all_is_well(rlaif: Command) -> None:
    done = rlaif("constitution", "lint", "safety", "--strict", columns=80)
    assert done.code == 0
    assert "no-operational-harm" in done.out
    assert "12.5%" in done.out
    assert "0 errors, 0 warnings, 0 notes" in done.out
    assert max(map(len, done.out.splitlines())) <= 80


@pytest.mark.parametrize(("strict", "code"), [([], 0), (["--strict"], 1)])
def test_warnings_fail_only_a_strict_lint(rlaif: Command, strict: list[str], code: int) -> None:
    done = rlaif("constitution", "lint", keep(rlaif, sound(VAGUE)), *strict)
    assert done.code == code
    assert "warning vague: vague" in done.out
    assert "-> say what the response does" in done.out


def test_what_a_lint_says_again_and_again_is_cut_and_json_has_it_all(rlaif: Command) -> None:
    vague = [Principle(id=f"vague-{number}", judge="Prefer the better response.") for number in range(8)]
    name = keep(rlaif, sound(*vague))
    said = rlaif("constitution", "lint", name).out
    assert sum(line.startswith("warning vague: ") for line in said.splitlines()) == 5
    assert "3 more of vague: --json has them all" in said
    found = rlaif("constitution", "lint", name, "--json").json["findings"]
    assert sum(finding["rule"] == "vague" for finding in found) == 8


def test_errors_fail_a_lint(rlaif: Command) -> None:
    done = rlaif("constitution", "lint", keep(rlaif, sound(Principle(id="again", **SOURCES))))
    assert done.code == 1
    assert "error duplicate: sources, again" in done.out


def test_lint_as_json_has_findings_shares_and_aims(rlaif: Command) -> None:
    done = rlaif("constitution", "lint", keep(rlaif, sound(VAGUE)), "--json", "--strict")
    assert done.code == 1
    told = done.json
    assert [(f["level"], f["rule"], f["principles"]) for f in told["findings"]] == [("warning", "vague", ["vague"])]
    assert told["principles"][1] == {
        "id": "sources", "weight": 1.0, "tags": [], "aims": ["honest"],
        "share": {"critique": 0.2, "revision": 0.2, "judge": 0.2},
    }  # fmt: skip
    assert told["aims"]["harmless"] == 0.2
    assert told["fingerprint"] == load_constitution(rlaif.folder / "mine.yaml").fingerprint


def test_a_faulty_file_is_no_finding_but_refused_with_its_line(rlaif: Command) -> None:
    done = rlaif("constitution", "lint", rlaif.write("bad.yaml", "name: x\nprincipals: []\n"))
    assert done.code == 2
    assert "bad.yaml:2: unknown field 'principals'" in done.err


def test_a_difference_is_shown_word_by_word_with_what_it_costs(rlaif: Command) -> None:
    before = sound(Principle(id="verse", judge="Prefer the response in verse."))
    after = sound(
        Principle(id="prose", judge="Say it plainly; prefer prose."), version="2", description="Now in prose."
    )  # fmt: skip
    changed = after.principles[1].model_copy(update={"judge": SOURCES["judge"].replace("invents", "makes up")})
    after = after.model_copy(update={"principles": (after.principles[0], changed, *after.principles[2:])})
    done = rlaif("constitution", "diff", keep(rlaif, before), keep(rlaif, after, "new.yaml"), columns=80)
    assert done.code == 0
    said = " ".join(done.out.split())
    for part in (
        "test 1 -> test 2", "version: 1 -> 2", "{+Now in prose.+}", "added prose; 0.0% -> 20.0% of judging",
        "removed verse; 20.0% -> 0.0% of judging", "reworded sources, judge", "[-invents-] {+makes up+} none.",
        "critique and revision 0.0% 0.0% 0.0%",
    ):  # fmt: skip
        assert part in said
    assert max(map(len, done.out.splitlines())) <= 80


def test_a_renamed_principle_and_a_weight_are_told_with_their_price(rlaif: Command) -> None:
    before = sound()
    renamed = before.principles[0].model_copy(update={"id": "once"})
    heavier = before.principles[1].model_copy(update={"weight": 2.0, "tags": ("honest",)})
    after = before.model_copy(update={"principles": (heavier, renamed, *before.principles[2:])})
    done = rlaif("constitution", "diff", keep(rlaif, before), keep(rlaif, after, "new.yaml"))
    said = " ".join(done.out.split())
    for part in (
        "renamed short-answers -> once (same texts): all its draws are drawn anew",
        "weight sources: 1 -> 2; 25.0% -> 40.0% of critique and revision",
        "tags sources: - -> honest", "order another one, which changes no draw", "of responses revised 4 times",
    ):  # fmt: skip
        assert part in said


def test_no_difference_is_said_and_another_language_costs_every_call(rlaif: Command) -> None:
    assert "no difference" in rlaif("constitution", "diff", "safety", "safety").out
    chinese = keep(rlaif, sound(language="zh"))
    done = rlaif("constitution", "diff", keep(rlaif, sound(), "old.yaml"), chinese)
    assert "every call of a new run is another one" in done.out


def test_a_difference_as_json_has_the_words_and_the_shares(rlaif: Command) -> None:
    after = of(*sound().principles[:3], sound().principles[3].model_copy(update={"judge": "Prefer warm words."}))
    told = rlaif("constitution", "diff", keep(rlaif, sound()), keep(rlaif, after, "new.yaml"), "--json").json
    (reworded,) = told["reworded"]
    assert (reworded["principle"], reworded["field"]) == ("warmth", "judge")
    assert ["added", "warm words"] in reworded["words"]
    judging = told["redrawn"][-1]
    assert (judging["purpose"], judging["draws"], judging["moved"]) == ("judge", 10_000, 0.0)
    assert judging["again"] == judging["reworded"] == pytest.approx(0.25, abs=0.02)


ANTHROPIC = {
    "harmful0": {
        "prompt": ["\n\nCritiqueRequest: Point out where the answer mocks the reader.\n\nCritique:"],
        "edit_request": "\n\nRevisionRequest: Rewrite the answer so that it takes the reader seriously.\n\nRevision:",
    }
}
JUDGE = ["\nChoose the response that takes the reader seriously. Options:"]


def test_two_files_are_imported_into_one_that_can_be_used_and_exported_again(rlaif: Command) -> None:
    files = [rlaif.write("a.json", json.dumps(ANTHROPIC)), rlaif.write("b.json", json.dumps(JUDGE))]
    done = rlaif("constitution", "import", *files, "--to", "mine.yaml", "--licence", "CC0-1.0", "--name", "both")
    assert done.code == 0
    assert "mine.yaml: 2 principles from anthropic, anthropic-judge" in done.out
    assert "unknown" not in done.out
    assert (rlaif.folder / "mine.yaml").read_text().startswith("# Imported from a.json, b.json.\nname: both\n")
    assert rlaif("constitution", "check", "mine.yaml").code == 0
    back = rlaif("constitution", "export", "mine.yaml", "--format", "anthropic", "--to", "back.json")
    assert json.loads((rlaif.folder / "back.json").read_text()) == ANTHROPIC
    assert "left out: Without a critique: takes-reader-seriously-2." in back.out
    assert rlaif("constitution", "export", "mine.yaml", "--format", "list", "--to", "back.yaml").code == 0
    assert len(yaml.safe_load((rlaif.folder / "back.yaml").read_text())) == 2


def test_an_import_says_what_it_left_out_and_that_the_licence_is_unknown(rlaif: Command) -> None:
    content = {
        "constitutions": [{"critic": "Find mockery in it.", "revision": "Write it kindly."}],
        "system_chat": [[]],
    }
    done = rlaif("constitution", "import", rlaif.write("a.json", json.dumps(content)), "--to", "mine.yaml")
    assert "left out of a.json: system_chat: 1 worked conversations" in done.out
    assert "the licence is 'unknown'" in done.out
    assert "next: rlaif constitution lint mine.yaml" in done.out
    assert load_constitution(rlaif.folder / "mine.yaml").licence == "unknown"


def test_an_import_beside_the_schema_tells_the_editor_of_it(rlaif: Command) -> None:
    assert rlaif("constitution", "schema", "--to", "constitution.schema.json").code == 0
    rlaif("constitution", "import", rlaif.write("a.txt", "Prefer verse, please do.\n"), "--to", "mine.yaml")
    assert "# yaml-language-server: $schema=constitution.schema.json\n" in (rlaif.folder / "mine.yaml").read_text()
    assert load_constitution(rlaif.folder / "mine.yaml").name == "mine"


def test_the_schema_is_printed_whole(rlaif: Command) -> None:
    assert rlaif("constitution", "schema").out == as_file()


@pytest.mark.parametrize(("arguments", "said"), [
    (["import", "none.txt", "--to", "x.yaml"], "none.txt: cannot be read"),
    (["import", "a.txt", "--to", "a.txt"], "a.txt is there already"),
    (["import", "a.txt", "--to", "none/x.yaml"], "none/x.yaml cannot be written"),
    (["import", "a.txt", "--to", "x.yaml", "--format", "antropic"], "unknown format 'antropic'; known: anthropic,"),
    (["import", "a.txt", "--to", "x.yaml", "--licence", ""], "licence: must not be empty"),
    (["import", "a.txt"], "Missing option '--to'"),
    (["export", "safety", "--format", "xml", "--to", "x"], "unknown format 'xml'"),
    (["export", "safty", "--format", "list", "--to", "x"], "did you mean 'safety'?"),
    (["export", "aspects", "--format", "anthropic", "--to", "x"], "has no `critique:` texts"),
    (["diff", "safety", "none.yaml"], "no constitution 'none.yaml'"),
    (["schema", "--to", "a.txt"], "a.txt is there already"),
])  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_line(rlaif: Command, arguments: list[str], said: str) -> None:
    rlaif.write("a.txt", "Prefer the response in verse.\n")
    done = rlaif("constitution", *arguments)
    assert done.code == 2
    assert said in done.err
    assert not (rlaif.folder / "x.yaml").exists()


def test_what_a_file_says_is_printed_and_not_obeyed(rlaif: Command) -> None:
    path = keep(rlaif, sound(Principle(id="odd", judge="Just [red]\x1b[31m be \x07 polite.")))
    plain = keep(rlaif, sound(Principle(id="odd", judge="Just be polite.")), "plain.yaml")
    for command in (["lint", path], ["diff", plain, path]):
        done = rlaif("constitution", *command)
        assert "\x1b" not in done.out
        assert "\\x1b[31m" in done.out
        assert "[red]" in done.out


def test_a_file_whose_name_is_no_utf8_is_imported_under_another_name(rlaif: Command) -> None:
    listed = rlaif.write("b\udcff.txt", "Prefer the shorter response.\n")
    done = rlaif("constitution", "import", listed, "--to", "b\udcff.yaml")
    assert (done.code, done.err) == (2, "rlaif: name: 'b\\udcff' is not UTF-8; give another with --name\n")
    assert rlaif("constitution", "import", listed, "--to", "b.yaml").code == 0
    assert (rlaif.folder / "b.yaml").read_text().startswith("# Imported from b?.txt.\n")


def test_nothing_is_left_of_a_file_that_could_not_be_written_whole(rlaif: Command) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        done = rlaif("constitution", "schema", "--to", "x.json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (done.code, "x.json cannot be written: File too large" in done.err) == (2, True)
    assert not (rlaif.folder / "x.json").exists()


def test_a_name_is_printed_and_not_obeyed(rlaif: Command) -> None:
    named = sound(VAGUE).model_copy(update={"name": "mi\x1b]0;ne\x07", "principles": (VAGUE,)})
    done = rlaif("constitution", "check", keep(rlaif, named))
    assert done.out == "mine.yaml: valid; 'mi\\x1b]0;ne\\x07' 1, 1 principle\n"
    made = rlaif("constitution", "schema", "--to", "a\x07.json")
    assert made.out.startswith("a\\x07.json: written")


def test_published_files_are_linted_on_80_columns(rlaif: Command, public_data: Callable[[str], Path]) -> None:
    source = str(public_data("llmswarm_constitution_anthropic.json"))
    rlaif("constitution", "import", source, "--to", "mine.yaml", "--licence", "MIT")
    done = rlaif("constitution", "lint", "mine.yaml", columns=80)
    assert done.code == 0
    assert "0 errors, 8 warnings" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
