"""Whatever a user gets wrong is told in one message that names it and the way out, with exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import SCRIPTED, Command

PRINCIPLE = "  - {id: kind, critique: Is it?, revision: Do., judge: Prefer.}\n"
CONSTITUTION = f"name: mine\nversion: '1'\nlicence: CC0\nprinciples:\n{PRINCIPLE}"
SILENT = "name: mine\nversion: '1'\nlicence: CC0\nprinciples:\n  - {id: kind, revision: Do.}\n"
PIPELINE = """\
name: mine
models: {policy: scripted, judge: scripted}
stages:
  - sample: {n: 2}
  - judge: {}
"""
PROMPTS = '{"prompt": "One?"}\n'
FILES = {
    "empty.yaml": "name: mine\nversion: '1'\nlicence: CC0\nprinciples: []\n",
    "nothing.yaml": "",
    "twice.yaml": CONSTITUTION + PRINCIPLE,
    "unknown.yaml": CONSTITUTION.replace("licence", "license"),
    "silent.yaml": SILENT,
    "tab.yaml": "name:\n\tx: 1\n",
    "typo.yaml": PIPELINE.replace("sample", "smaple"),
    "nojudge.yaml": PIPELINE.replace("  - judge: {}\n", ""),
    "code.yaml": PIPELINE.replace("- judge: {}", "- os:system: {}"),
    "template.yaml": PIPELINE + "templates: {judge_pairwise: my.jinja}\n",
    "my.jinja": "--- user\nCompare.\n{{ respones_a }}\n",
    "broken.jsonl": PROMPTS + '{"prompt": "Two?"\n',
    "column.csv": "question\nOne?\n",
    "blank.jsonl": '{"prompt": " "}\n',
    "none.jsonl": "",
    "prompts.txt": "One?\n",
    "a-file": "",
}

GENERATE = ["generate", *SCRIPTED, "--limit", "2"]
MINE = ["generate", "--limit", "2"]

TABLE = [
    # the constitution
    ([*GENERATE, "--constitution", "unknown.yaml"], ["unknown.yaml:3", "unknown field 'license'", "'licence'?"]),
    ([*GENERATE, "--constitution", "empty.yaml"], ["empty.yaml:4", "principles", "at least one"]),
    ([*GENERATE, "--constitution", "nothing.yaml"], ["nothing.yaml:1", "empty"]),
    ([*GENERATE, "--constitution", "twice.yaml"], ["twice.yaml:6", "principles[1].id", "'kind' already"]),
    ([*GENERATE, "--constitution", "tab.yaml"], ["tab.yaml:2", "a tab; indent YAML with spaces"]),
    ([*GENERATE, "--constitution", "silent.yaml"], ["'mine' has `critique:`", "add that text"]),
    ([*GENERATE, "--constitution", "safty"], ["no constitution 'safty'", "'safety'?"]),
    (["constitution", "check", "twice.yaml"], ["twice.yaml:6", "already"]),
    (["constitution", "show", "nowhere.yaml"], ["no constitution 'nowhere.yaml'", "bundled:"]),
    # the pipeline and its templates
    (["generate", "typo.yaml"], ["typo.yaml:4", "'smaple'", "'sample'?"]),
    (["generate", "cia"], ["no pipeline 'cia'", "'cai'?", "small"]),
    ([*MINE, "nojudge.yaml"], ["export.pairs", "'judge' stage", "export.pairs=[]"]),
    ([*MINE, "code.yaml"], ["os:system", "--allow-code"]),
    ([*MINE, "template.yaml"], ["my.jinja:3", "'respones_a'", "response_a"]),
    ([*MINE, "template.yaml", "--set", "templates.judge_pairwise=gone.jinja"], ["no template 'gone.jinja'"]),
    ([*GENERATE, "--set", "templates.critic=my.jinja"], ["unknown template 'critic'", "critique"]),
    # prompts
    ([*GENERATE, "--prompts", "broken.jsonl"], ["broken.jsonl:2", "JSON"]),
    ([*GENERATE, "--prompts", "column.csv"], ["column.csv", "no column 'prompt'", "question", "prompts.column="]),
    ([*GENERATE, "--prompts", "blank.jsonl"], ["blank.jsonl:1", "'prompt' is empty"]),
    ([*GENERATE, "--prompts", "none.jsonl"], ["none.jsonl", "no prompts"]),
    ([*GENERATE, "--prompts", "prompts.txt"], ["prompts.txt", ".jsonl"]),
    ([*GENERATE, "--prompts", "redtaem"], ["no prompt set 'redtaem'", "'redteam'?"]),
    # models
    (["generate", "--policy", "gpt-x"], ["unknown model 'gpt-x'", "openai/MODEL"]),
    (["generate", "--judge", "http://localhost:1/v1"], ["names no model", "#MODEL"]),
    ([*GENERATE, "--policy", "local/none.gguf"], ["none.gguf"]),
    ([*GENERATE, "--set", "models.policy.script.wrods=3"], ["wrods"]),
    ([*GENERATE, "--set", "judge.by.model=critic"], ["'critic'", "policy, judge"]),
    *(
        ([*GENERATE, "--policy", "http://h/v1#m", "--set", f"models.policy.{setting}"], words)
        for setting, words in (
            ("base_url=ftp://x/v1", ["'ftp://x/v1'", "http://"]),
            ("base_url='http://127.0.0.1:99999/v1'", ["99999", "Port"]),
            ("base_url='http://[::1/v1'", ["no address"]),
            ("base_url='http:///v1'", ["names no host"]),
            ("api_key_env=[]", ["names no variable"]),
            ("timeout_s=.inf", ["timeout_s"]),
            ("extra_body={d: 2020-01-01}", ["extra_body", "put dates in quotes"]),
            ("headers={'': x}", ["header ''"]),
            ('headers={x: "a\\nb"}', ["header 'x'"]),
        )
    ),
    # names, folders, options
    ([*GENERATE, "--run", "a b"], ["--run 'a b'", "letters"]),
    ([*GENERATE, "--run=-x"], ["--run '-x'", "letters"]),
    ([*GENERATE, "--run", "x" * 300], ["at most 100"]),
    ([*GENERATE, "--run", "batches"], ["--run 'batches'"]),
    ([*GENERATE, "--run", "a/b"], ["--run 'a/b'", "letters"]),
    ([*GENERATE, "--run", ".."], ["--run '..'", "letters"]),
    (["show", "nothing"], ["no run 'nothing' in runs", "there are: none"]),
    (["retry", "nothing"], ["no run 'nothing'"]),
    (["export", "nothing"], ["no run 'nothing'"]),
    (["show", "../x"], ["'../x'"]),
    (["journal", "size"], ["no journal", "--runs-dir"]),
    (["copy", "nothing"], ["nothing bundled is 'nothing'", "constitutions/safety"]),
    (["copy", "safety", "--to", "no/folder"], ["cannot write", "no/folder"]),
    (["generate", "--limit", "many"], ["--limit", "integer"]),
    (["generate", "--limit", "0"], ["--limit", "greater than or equal to 1"]),
    (["generate", "--limit", "-3"], ["--limit", "greater than or equal to 1"]),
    (["generate", "--limt", "3"], ["--limt", "--limit"]),
    (["generate", "--set", "sample.n"], ["--set sample.n", "key=value"]),
    (["generate", "--set", "smaple.n=2"], ["smaple", "'sample'?"]),
    (["generate", "cai", "more"], ["more"]),
    (["genrate"], ["genrate", "generate"]),
    (["journal", "prune", "--older-than", "soon"], ["no journal"]),
]


@pytest.mark.parametrize(("arguments", "words"), TABLE, ids=[" ".join(arguments[-3:]) for arguments, _ in TABLE])
def test_bad_input_gets_one_clear_message_before_any_call(
    rlaif: Command, arguments: list[str], words: list[str]
) -> None:
    for name, text in FILES.items():
        rlaif.write(name, text)
    done = rlaif(*arguments)
    assert done.code == 2
    assert done.out == ""
    for word in words:
        assert word in done.err
    assert done.err.startswith("rlaif: ")
    assert len(done.err.splitlines()) <= 4
    assert not list(Path(rlaif.folder).glob("runs/*/parts/*"))


@pytest.mark.parametrize("runs_dir", ["a-file", "a-file/below", "/proc/nowhere"])
def test_an_impossible_runs_folder_is_named(rlaif: Command, runs_dir: str) -> None:
    rlaif.write("a-file", "")
    done = rlaif.generate("--runs-dir", runs_dir)
    assert done.code == 1
    assert done.out == ""
    assert f"{runs_dir}/first cannot be " in done.err
    assert len(done.err.splitlines()) == 1


def test_a_faulty_prompt_further_down_stops_the_run_with_its_line(rlaif: Command) -> None:
    rlaif.write("late.jsonl", PROMPTS * 3 + '{"prompt": "New?"}\n' + '{"promt": "Two?"}\n')
    done = rlaif.generate("--prompts", "late.jsonl", limit=9)
    assert done.code == 2
    assert "late.jsonl:5: no column 'prompt'; there are: promt" in done.err


def test_an_unreachable_endpoint_is_named(rlaif: Command) -> None:
    done = rlaif("generate", "--limit", "1", "--policy", "http://127.0.0.1:9/v1#m", "--judge", "scripted",
                 "--set", "models.policy.attempts=1")  # fmt: skip
    assert done.code in (1, 2)
    assert "127.0.0.1:9" in done.err


def test_a_run_folder_of_another_meaning_is_refused_with_what_differs(rlaif: Command) -> None:
    assert rlaif.generate().code == 0
    done = rlaif.generate("--seed", "5")
    assert done.code == 2
    assert "seed: 0 -> 5" in done.err
    assert "--run" in done.err


def test_an_export_changes_export_settings_only(rlaif: Command) -> None:
    rlaif.generate()
    done = rlaif("export", "first", "--set", "sample.n=3")
    assert done.code == 2
    assert "export.*" in done.err
    done = rlaif("export", "first", "--set", "export.min_p=7")
    assert done.code == 2
    assert "export.min_p" in done.err


def test_a_prune_without_a_usable_age_forgets_nothing(rlaif: Command) -> None:
    rlaif.generate()
    done = rlaif("journal", "prune", "--older-than", "soon", "--yes")
    assert done.code == 2
    assert "30d" in done.err


def test_a_file_is_never_copied_over_another(rlaif: Command) -> None:
    assert rlaif("copy", "safety").code == 0
    done = rlaif("copy", "safety")
    assert done.code == 2
    assert "safety.yaml is there already" in done.err


def test_a_record_that_is_not_there_or_not_the_only_one_is_named(rlaif: Command) -> None:
    rlaif.generate()
    done = rlaif("show", "first", "zzzz")
    assert done.code == 2
    assert "rlaif show first" in done.err
    done = rlaif("show", "first", "")
    assert done.code == 2
    assert "give more of it" in done.err


@pytest.mark.parametrize("arguments", [[], ["journal"], ["constitution"]])
def test_a_command_without_arguments_answers_with_its_help(rlaif: Command, arguments: list[str]) -> None:
    done = rlaif(*arguments)
    assert done.code == 2
    assert done.err.startswith("Usage: ")
