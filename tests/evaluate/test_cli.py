"""`rlaif eval` as it is typed: tables, JSON, exit codes, and errors that say the way out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlaif.errors import ConfigError
from rlaif.evaluate.classifier import load_classifier
from rlaif.evaluate.models import models_of, spec_of
from rlaif.evaluate.prompts import PromptSet
from tests.cli.command import Command

SAFETY = ["eval", "safety", "scripted", "scripted/after", "--limit", "5", "--no-plots"]


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(tmp_path, capsys, monkeypatch)


def test_safety_prints_tables_and_writes_beside_the_run(command: Command) -> None:
    done = command(*SAFETY, "--run", "mine", "--judge", "scripted/judge")
    assert done.code == 0
    assert "harmful compliance" in done.out
    assert "after" in done.out
    assert "agrees with the detector" in done.out
    folder = command.folder / "runs" / "mine" / "evaluation"
    assert {path.name for path in folder.iterdir()} == {"evaluation.json", "evaluation.md"}


def test_the_same_command_again_is_the_same_run_and_says_the_same(command: Command) -> None:
    first, again = (command(*SAFETY, "--json") for _ in range(2))
    assert first.json == again.json
    assert "0 calls sent" in again.err
    assert len(first.json["models"]) == 2
    assert first.json["run"].startswith("safety-after-")


def test_a_narrow_terminal_leaves_out_what_it_has_no_room_for(command: Command) -> None:
    done = command(*SAFETY, columns=60)
    assert done.code == 0
    assert "harmful compliance" in done.out
    assert all(len(line) <= 60 for line in done.out.splitlines())


def test_compare_prints_who_wins(command: Command) -> None:
    arguments = ["eval", "compare", "scripted", "scripted/b", "--judge", "scripted/j", "--limit", "4", "--no-plots"]
    done = command(*arguments)
    assert done.code == 0
    assert "win rate" in done.out
    assert "equal lengths" in done.out
    assert command(*arguments, "--json").json["kind"] == "compare"


def test_a_dry_run_says_what_it_would_take(command: Command) -> None:
    done = command(*SAFETY, "--dry-run")
    assert done.code == 0
    assert "nothing was sent" in done.out
    assert not (command.folder / "runs" / "mine").exists()


def test_a_limit_ends_it_with_its_code_and_the_same_command_goes_on(command: Command) -> None:
    stopped = command(*SAFETY, "--run", "mine", "--max-calls", "4")
    assert stopped.code == 3
    assert not (command.folder / "runs" / "mine" / "evaluation").exists()
    assert command(*SAFETY, "--run", "mine").code == 0


def test_a_run_that_is_no_evaluation_is_left_alone(command: Command) -> None:
    command.generate(run="other")
    done = command(*SAFETY, "--run", "other")
    assert done.code == 2
    assert "run 'other' is no evaluation; choose another --run name" in done.err
    assert not (command.folder / "runs" / "other" / "prompts").exists()


def test_where_nothing_was_answered_the_failures_are_said(command: Command) -> None:
    failing = ["--set", "models.m2.script={error_rate: 1}", "--set", "models.m2.attempts=1"]
    done = command(*SAFETY, *failing, "--run", "mine")
    assert done.code == 1
    assert "10 records failed" in done.out
    assert not (command.folder / "runs" / "mine" / "evaluation").exists()


def test_failures_are_said_and_end_with_one(command: Command) -> None:
    done = command(*SAFETY, "--set", "models.m2.script={error_rate: 0.3}", "--set", "models.m2.attempts=1")
    assert done.code == 1
    assert "have no answer of every model" in done.out


def test_a_sheet_is_labelled_and_held_against_the_detector(command: Command) -> None:
    done = command(*SAFETY, "--sheet", "sheet.jsonl", "--sheet-size", "8")
    assert "8 answers to label in sheet.jsonl" in done.err
    path = command.folder / "sheet.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | {"label": "comply"}) + "\n" for row in rows))
    done = command("eval", "agreement", "sheet.jsonl")
    assert done.code == 0
    assert "8 labelled answers" in done.out
    assert "right in 100.0%" in done.out
    assert command("eval", "agreement", "sheet.jsonl", "--json").json["counts"]["comply"]["comply"] == 8
    again = command(*SAFETY, "--sheet", "sheet.jsonl")
    assert again.code == 2
    assert "sheet.jsonl is there already" in again.err


def test_a_sheet_is_written_though_some_prompts_failed(command: Command) -> None:
    failing = ["--set", "models.m2.script={error_rate: 0.3}", "--set", "models.m2.attempts=1"]
    done = command(*SAFETY, *failing, "--sheet", "sheet.jsonl")
    assert done.code == 1
    assert (command.folder / "sheet.jsonl").is_file()


def test_prompts_that_could_not_be_read_are_mended_under_the_same_name(command: Command) -> None:
    sets = ["--safe", command.write("safe.jsonl", '{"prompt": [{"role": "robot", "content": "Hi."}]}'), "--run", "mine"]
    broken = command(*SAFETY, *sets)
    assert broken.code == 2
    assert "safe.jsonl:1: 'prompt': Invalid enum value 'robot'" in broken.err
    command.write("safe.jsonl", '{"prompt": "Hi."}')
    assert command(*SAFETY, *sets).code == 0


def test_a_prompt_that_is_there_twice_is_counted_once_and_said(command: Command) -> None:
    unsafe = command.write("unsafe.jsonl", '{"prompt": "Both?"}\n{"prompt": "Twice?"}\n{"prompt": "Twice?"}\n')
    safe = command.write("safe.jsonl", '{"prompt": "Both?"}\n{"prompt": "Once?"}\n')
    arguments = ["eval", "safety", "scripted", "--unsafe", unsafe, "--safe", safe, "--no-plots", "--json"]
    found = command(*arguments).json
    assert (
        "2 rows repeat prompts, of the same set or of another: each prompt is asked and counted once." in found["notes"]
    )
    assert (found["models"][0]["unsafe"]["n"], found["models"][0]["safe"]["n"]) == (2, 1)


def test_an_evaluation_of_another_kind_is_left_alone(command: Command) -> None:
    folder = command.folder / "runs" / "mine" / "evaluation"
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text('{"kind": "reward"}')
    done = command(*SAFETY, "--run", "mine")
    assert done.code == 2
    assert "evaluation.json is of another evaluation; choose another --run name" in done.err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["safety", "gpt"], "unknown model 'gpt'"),
        (["safety", "scripted", "scripted"], "scripted is named twice"),
        (["safety", "scripted", "--safe", "nothing"], "no prompt set 'nothing'"),
        (["safety", "scripted", "--where-safe", "label"], "--where-safe label: write NAME=VALUE"),
        (["safety", "scripted", "--constitution", "safety"], "give --judge MODEL, too"),
        (["safety", "scripted", "--sheet", "none/sheet.jsonl"], "none is no folder; make it first"),
        (["safety", "scripted", "--classifier", "rlaif.nothing:It"], "--classifier rlaif.nothing:It: cannot be made"),
        (["safety", "scripted", "--classifier", f"{__name__}:Broken"], "cannot be made: RuntimeError: no weights"),
        (["safety", "scripted", "--set", "smaple.n=1"], "no stage or field 'smaple'; did you mean 'sample'?"),
        (["safety", "scripted", "--set", "sample.temperatures=[0, 1]"], "an evaluation has one answer of each model"),
        (["compare", "scripted", "--judge", "scripted/j"], "give two models or more to compare"),
        (["compare", "scripted", "scripted/b"], "Missing option '--judge'"),
        (["agreement", "missing.jsonl"], "missing.jsonl"),
    ],
)
def test_errors_are_one_line_and_code_two(command: Command, arguments: list[str], why: str) -> None:
    done = command("eval", *arguments)
    assert done.code == 2
    assert why in done.err
    assert not done.out


# --- prompts ---


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def lines(path: str, **more: dict[str, str]) -> list[dict[str, str | None]]:
    return [json.loads(line) for line in PromptSet(path, **more).lines()]


def test_columns_of_published_sets_are_found_and_rows_chosen(tmp_path: Path) -> None:
    xs = write(tmp_path / "x.csv", "id,prompt,type,label\n1,One?,homonyms,safe\n2,Two?,contrast,unsafe\n")
    assert lines(xs, where={"label": "safe"}) == [{"prompt": "One?", "category": "homonyms"}]
    sst = write(tmp_path / "s.csv", "id,harm_area,category,prompts_final\n1,Fraud,advice,Three?\n")
    assert lines(sst) == [{"prompt": "Three?", "category": "Fraud"}]
    assert lines(sst, columns={"prompt": "harm_area", "category": "id"}) == [{"prompt": "Fraud", "category": "1"}]
    typed = write(tmp_path / "t.jsonl", '{"prompt": "A?", "n": 3}\n{"prompt": "B?", "n": 4}\n')
    assert lines(typed, where={"n": "3"}) == [{"prompt": "A?", "category": None}]


@pytest.mark.parametrize("value", [None, "", "  ", 3, []])
def test_a_row_without_a_prompt_is_named_by_its_own_file_and_line(tmp_path: Path, value: object) -> None:
    path = write(tmp_path / "x.jsonl", '{"prompt": "A?"}\n' + json.dumps({"prompt": value}))
    with pytest.raises(ConfigError, match=r"x.jsonl:2: 'prompt' is no text; fill it in, remove the row"):
        lines(path)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"where": {"labl": "safe"}}, "no column 'labl'; there are: prompt, label; did you mean 'label'"),
        ({"where": {"label": "unsafe"}}, "no prompts where label = unsafe"),
        ({"columns": {"prompt": "text"}}, "no column 'text'"),
        ({"columns": {"answer": "text"}}, "unknown column role 'answer'; known: prompt, category"),
    ],
)
def test_a_set_without_such_rows_or_columns_is_an_error(
    tmp_path: Path, more: dict[str, dict[str, str]], why: str
) -> None:
    path = write(tmp_path / "x.csv", "prompt,label\nOne?,safe\n")
    with pytest.raises(ConfigError, match=why):
        lines(path, **more)


# --- models ---


def adapter(folder: Path, base: str, training: dict[str, object] | None = None) -> str:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    if training is not None:
        (folder / "training.json").write_text(json.dumps(training))
    return str(folder)


def test_a_folder_is_asked_by_transformers_and_an_adapter_with_its_base(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    spec = spec_of(str(whole))
    assert (spec.provider, spec.model, spec.lora) == ("transformers", str(whole), None)
    part = adapter(tmp_path / "adapter", str(whole))
    for text in (part, f"transformers/{part}"):
        spec = spec_of(text)
        assert (spec.model, spec.lora) == (str(whole), part)
    trained = adapter(tmp_path / "trained", "/gone/converted", {"base": {"model": "local"}})
    assert (spec_of(trained).model, spec_of(trained).lora) == ("", trained)
    damaged = adapter(tmp_path / "damaged", "base", {"base": None})
    with pytest.raises(ConfigError, match="damaged; train it again"):
        spec_of(damaged)


def test_models_of_one_name_are_told_apart_by_their_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one/final", "two/final"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text(json.dumps({"name": name}))
    first, second, third = models_of(["one/final", "two/final", "scripted"])
    assert [model.name for model in (first, second, third)] == ["one/final", "two/final", "scripted"]
    assert first.identity != second.identity


class Broken:
    def __init__(self) -> None:
        raise RuntimeError("no weights")


class Harm:
    def __call__(self, prompts: list[str], answers: list[str]) -> list[float]:
        return [1.5] if prompts == ["too sure"] else [0.5] * len(answers)


def test_a_classifier_of_the_users_own_is_checked() -> None:
    classifier = load_classifier(f"{__name__}:Harm")
    assert list(classifier(["a", "b"], ["x", "y"])) == [0.5, 0.5]
    with pytest.raises(ConfigError, match="a number from 0 to 1 for each answer"):
        classifier(["too sure"], ["x"])


def classifier_folder(folder: Path, labels: list[str], bias: list[float]) -> str:
    torch = pytest.importorskip("torch")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "yes": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32
    ).save_pretrained(folder)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    names = dict(enumerate(labels))
    model = BertForSequenceClassification(
        BertConfig(vocab_size=3, max_position_embeddings=32, id2label=names, num_labels=len(labels), **sizes)
    )
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor(bias))
    model.save_pretrained(folder)
    return str(folder)


def test_a_folders_classifier_gives_the_probability_of_its_label_for_harm(tmp_path: Path) -> None:
    folder = classifier_folder(tmp_path / "classifier", ["Unsafe", "safe"], [0.0, 2.0])
    answers = [f"yes {'yes ' * i}" for i in range(20)]
    assert load_classifier(folder)(["yes"] * 20, answers) == pytest.approx([0.1192] * 20, abs=1e-3)


def test_a_classifier_without_a_label_for_harm_is_refused(tmp_path: Path) -> None:
    folder = classifier_folder(tmp_path / "classifier", ["good", "bad"], [0.0, 0.0])
    with pytest.raises(ConfigError, match=r"none of its labels \(good, bad\) is harm"):
        load_classifier(folder)
