"""A loop's file, its commands, and its steps: each done once, whatever ended the loop before."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlaif.api import export
from rlaif.errors import ConfigError, RlaifError, StoreError
from rlaif.loop.heldout import split
from rlaif.loop.plan import Place, steps
from rlaif.loop.rounds import Begun, Ended, check, planned, run_loop
from rlaif.loop.settings import LoopSettings, load_loop
from rlaif.loop.steps import Done, Lock, StepFailed, failure
from rlaif.resources import bundled

LOOPS = ("cai-dpo", "self-reward", "small")
RUNS = Path("runs")
SCRIPTED = {"models.policy": "scripted", "revise.rounds": 1}


def settings(**given: Any) -> LoopSettings:  # Any: as YAML gives it
    return LoopSettings.model_validate({"train": ["dpo"], "evaluate": {"allow_seen": True}, **given})


def place(folder: Path = Path("loops/mine")) -> Place:
    return Place(folder, folder.parent / "runs")


def command(settings: LoopSettings, name: str, number: int = 1, last: str = "base") -> list[str]:
    (found,) = [step for step in steps(settings, place(), number, "base", last) if step.name == name]
    return list(found.arguments)


def after(arguments: list[str], option: str) -> list[str]:
    return [value for name, value in pairwise(arguments) if name == option]


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


# --- the file ---


@pytest.mark.parametrize("name", LOOPS)
def test_a_bundled_loop_can_be_run_as_it_is_and_says_what_it_is(name: str, tmp_path: Path) -> None:
    path, found = load_loop(name)
    plan = planned(found, place(tmp_path / name))
    assert len(plan) % found.rounds == 0
    assert not any(done for _, done in plan)
    head = re.match(r"(?:#.*\n)+", bundled("pipelines", f"loop/{name}").read_text())
    assert path.stem == name
    assert head is not None
    assert f"rlaif loop {name}" in head[0]
    assert re.search(r"arXiv:\d{4}\.\d{5}", head[0])
    assert "Cost: " in head[0]


def test_the_documented_file_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "loop.md").read_text()
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.M | re.S)
    _, found = load_loop(write(tmp_path, example))
    assert found.train[1].data == ("helpful.jsonl=0.5,1000",)
    assert [found.train[1].set, found.generate.options] == [{"beta": 0.1}, {"max-cost": 20}]


def test_a_wrong_field_is_named_with_its_line(tmp_path: Path) -> None:
    file = write(tmp_path, "train: [dpo]\ngenerate:\n  piepline: cai\n")
    with pytest.raises(ConfigError, match=r"mine.yaml:3: generate: unknown field 'piepline'; did you mean 'pipeline'"):
        load_loop(file)


def test_set_reaches_fields_a_commands_options_and_every_step_of_a_method(tmp_path: Path) -> None:
    file = write(tmp_path, "train: [sft, {method: dpo, set: {beta: 0.3}}, dpo]\nevaluate:\n")
    texts = ["dpo.beta=0.2", "generate.set.revise.rounds=1", "generate.limit=5", "gates.win_rate=null"]
    _, found = load_loop(file, texts, rounds=7)
    assert [step.set for step in found.train] == [{}, {"beta": 0.2}, {"beta": 0.2}]
    assert found.generate.set == {"revise.rounds": 1}
    assert (found.generate.limit, found.rounds, found.gates.win_rate) == (5, 7, None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dop.beta=1", "no field or training step 'dop' that has one; did you mean 'dpo'"),
        ("train.dpo.beta=1", "there are: dpo, rounds, model"),
        ("rounds=0", "rounds: should be greater than or equal to 1"),
    ],
)
def test_a_wrong_set_says_what_there_is(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        load_loop(write(tmp_path, "train: [dpo]\n"), [text])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"gates": {"win_rate": 0.6}}, "gates.win_rate reads a comparison"),
        ({"gates": {"capability_drop": 0.1}}, "gates.capability_drop reads scores"),
        ({"evaluate": None, "gates": {"harmful_rise": 0}}, "`gates` read an evaluation"),
        ({"train": ["reward"]}, "a reward model is nothing to go on with"),
        ({"train": ["sft", "grpo"]}, "grpo needs a `reward` step before it"),
        ({"train": []}, "name at least one step"),
        ({"evaluate": {"compare": {}}}, "evaluate.compare: nobody compares"),
        ({"evaluate": {"options": {"unsafe": "p.jsonl"}}}, "'unsafe' is the loop's own to say"),
        ({"train": None}, "name at least one step"),
        ({"evaluate": {"hold_out": 0.2}}, "name the set that is split in generate.prompts"),
        ({"evaluate": {"hold_out": 0.2, "unsafe": "redteam"}}, "leave out `unsafe`, or `hold_out`"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        settings(**given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"generate": {"pipeline": "nope"}}, "no pipeline 'nope'"),
        ({"generate": {"set": {"revise.ronuds": 1}}}, "ronuds"),
        ({"train": [{"method": "dpo", "recipe": "nope"}]}, "no pipeline 'train/nope'"),
        ({"generate": {"prompts": "p-{round}.jsonl"}}, "no file p-1.jsonl; write one for each of 3 rounds"),
        ({"generate": {"prompts": "nope"}}, "no prompt set 'nope'"),
        ({"judge": "opneai/j"}, "unknown model 'opneai/j'"),
        ({"generate": {"pipeline": "rejudge"}}, "no stage of 'rejudge' asks the model that is trained"),
        ({"generate": {"set": {"export.pairs": ["strong_vs_weak"]}}}, "export.pairs: 'strong_vs_weak' needs"),
    ],
)
def test_what_will_not_run_is_said_before_anything_runs(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        planned(settings(**given), place())


# --- the commands of a round ---


def test_a_round_generates_from_the_last_model_and_trains_each_step_on_the_one_before() -> None:
    found = settings(train=["sft", "dpo"], replay=0.3, replay_rows=50, judge="openai/j", seed=4)
    made = [step.arguments for step in steps(found, place(), 3, "base", "models/two")]
    assert [arguments[0] for arguments in made] == ["generate", "train", "train", "eval"]
    generate, sft, dpo, safety = map(list, made)
    assert after(generate, "--policy") == ["transformers/models/two"]
    assert (after(generate, "--seed"), after(generate, "--judge")) == (["6"], ["openai/j"])
    assert sft[1:4] == ["mine-r3", "mine-r2=0.3,50", "mine-r1=0.3,50"]
    assert after(sft, "--model") == ["models/two"]
    assert after(dpo, "--model") == after(sft, "--out") == ["loops/mine/models/mine-r3-sft"]
    new = "transformers/loops/mine/models/mine-r3-dpo"
    assert safety[2:5] == ["transformers/base", "transformers/models/two", new]


def test_models_of_two_rounds_have_two_names_though_their_folders_are_made_alike() -> None:
    found = settings(train=["dpo", "dpo"])
    names = [Path(step.makes).parent.name for n in (1, 2) for step in steps(found, place(), n, "b", "b")[1:3]]
    assert names == ["mine-r1-dpo", "mine-r1-dpo-2", "mine-r2-dpo", "mine-r2-dpo-2"]


def test_the_bundled_model_is_local_to_train_and_the_engine_alone_to_ask() -> None:
    found = settings(evaluate={"compare": {"prompts": "helpful"}}, judge="scripted", engine="vllm")
    made = {step.name: list(step.arguments) for step in steps(found, place(), 1, "local", "local")}
    assert after(made["generate"], "--policy") == ["vllm"]
    assert after(made["train-dpo"], "--model") == ["local"]
    assert made["eval-safety"][2:4] == ["vllm", "vllm/loops/mine/models/mine-r1-dpo"]
    assert made["eval-compare"][2:4] == ["vllm/loops/mine/models/mine-r1-dpo", "vllm"]


def test_a_reward_model_is_what_the_policy_learns_from_and_not_what_it_goes_on_from() -> None:
    found = settings(train=["sft", "reward", "grpo"])
    grpo = command(found, "train-grpo")
    assert after(grpo, "--reward") == ["loops/mine/models/mine-r1-reward"]
    assert after(grpo, "--model") == ["loops/mine/models/mine-r1-sft"]


@pytest.mark.parametrize(("step", "merges"), [({}, True), ({"options": {"full": True}}, False)])
def test_adapters_are_merged_as_the_next_step_takes_a_whole_model(step: dict[str, Any], merges: bool) -> None:
    assert ("--merge" in command(settings(train=[{"method": "dpo", **step}]), "train-dpo")) is merges


def test_a_judge_that_no_stage_asks_is_for_comparing_alone() -> None:
    evaluate = {"compare": {"prompts": "helpful"}, "allow_seen": True}
    found = settings(judge="openai/j", generate={"pipeline": "rlcd"}, evaluate=evaluate)
    assert after(command(found, "generate"), "--judge") == []
    assert after(command(found, "eval-compare"), "--judge") == ["openai/j"]


def test_options_are_handed_on_as_the_command_takes_them() -> None:
    options = {"max-tokens": 64, "plots": True, "against": ["a", "b"], "sheet": None}
    evaluation = command(settings(evaluate={"options": options, "allow_seen": True}), "eval-safety")
    assert after(evaluation, "--max-tokens") == ["64"]
    assert after(evaluation, "--against")[-2:] == ["a", "b"]
    assert "--plots" in evaluation
    assert "--sheet" not in evaluation
    given = {"set": {"export.min_p": 0.5, "name": "", "filter.rules": ["empty"]}, "prompts": "mine-{round}.jsonl"}
    generate = command(settings(generate=given), "generate", 2)
    assert after(generate, "--set") == ["export.min_p=0.5", 'name=""', 'filter.rules=["empty"]']
    assert after(generate, "--prompts") == ["mine-2.jsonl"]


# --- held out ---


def test_a_model_is_not_measured_by_prompts_it_was_trained_on_unless_that_is_wanted() -> None:
    given = {"generate": {"pipeline": "cai", "prompts": "redteam"}, "judge": "scripted"}
    with pytest.raises(ConfigError, match=r"evaluate.unsafe: 216 of the 216 prompts of redteam are among what is"):
        check(settings(evaluate={}, **given), RUNS)
    check(settings(evaluate={"allow_seen": True}, **given), RUNS)
    check(settings(evaluate={"hold_out": 0.25}, **given), RUNS)
    with pytest.raises(ConfigError, match=r"evaluate\.safe: 216 of the 216"):
        check(settings(evaluate={"hold_out": 0.25, "safe": "redteam"}, **given), RUNS)
    with pytest.raises(ConfigError, match=r"evaluate\.compare\.prompts: 216 of the 216"):
        check(settings(evaluate={"hold_out": 0.25, "compare": {"prompts": "redteam"}}, **given), RUNS)


def test_what_is_held_out_is_in_no_round_and_is_what_models_are_measured_by(tmp_path: Path) -> None:
    found = settings(generate={"prompts": "redteam", "limit": 3}, evaluate={"hold_out": 0.25})
    here = place(tmp_path / "mine")
    split(found, here)
    rounds, held_out = (
        [json.loads(line)["prompt"][-1]["content"] for line in path.read_text().splitlines()]
        for path in (here.prompts_of_rounds, here.held_out)
    )
    assert len(rounds) + len(held_out) == 216
    assert 30 < len(held_out) < 80
    assert not set(rounds) & set(held_out)
    made = {step.name: list(step.arguments) for step in steps(found, here, 1, "base", "base")}
    assert after(made["generate"], "--prompts") == [str(here.prompts_of_rounds)]
    assert after(made["eval-safety"], "--unsafe") == [str(here.held_out)]


def test_what_says_most_of_a_held_out_prompt_is_in_no_round_either(tmp_path: Path) -> None:
    topics = ("bread", "soap", "cheese", "wine", "jam", "tea", "paper", "glass", "steel", "rope")
    about = "How do I make {} at home with what I have in the kitchen on a {}?"
    days = ("Monday", "Friday", "Sunday")
    texts = [about.format(topic, day) for topic in topics for day in days]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    found = settings(generate={"prompts": str(tmp_path / "p.jsonl")}, evaluate={"hold_out": 0.1})
    here = place(tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"0.1 of 30 prompts leaves one half empty"):
        split(found, here)
    other = "Which birds sleep in the air while they cross an ocean, and for how long?"
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in [*texts, other]))
    split(found, here)
    (kept,) = here.prompts_of_rounds.read_text().splitlines()
    assert json.loads(kept)["prompt"][0]["content"] == other


def test_data_beside_the_rounds_own_is_held_against_what_models_are_measured_by(tmp_path: Path) -> None:
    prompts = bundled("data", "redteam").read_text().splitlines()
    rows = [{"prompt": json.loads(line)["prompt"], "completion": "No."} for line in prompts]
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = [{"method": "sft", "data": [f"{tmp_path}/more.jsonl=0.9"]}]
    given = {"train": train, "generate": {"prompts": "helpful"}}
    with pytest.raises(ConfigError, match=r"evaluate\.unsafe: 190 of the 216 prompts of redteam are among"):
        check(settings(evaluate={}, **given), RUNS)
    check(settings(evaluate={"allow_seen": True}, **given), RUNS)
    with pytest.raises(ConfigError, match=r"evaluate\.hold_out: 190 of the 216 prompts of generate\.prompts"):
        check(settings(evaluate={"hold_out": 0.2}, train=train, generate={"prompts": "redteam"}), RUNS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "train.sft.data: no run '.*more.jsonl' in runs, and no file or folder"),
        ('{"prompt": "Why?"}\n', "train.sft.data: .*more.jsonl.* sft reads the columns"),
    ],
)
def test_data_that_cannot_be_trained_on_is_said_before_anything_runs(
    text: str | None, says: str, tmp_path: Path
) -> None:
    file = tmp_path / "more.jsonl"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        check(settings(train=[{"method": "sft", "data": [str(file)]}]), RUNS)


# --- steps ---


@pytest.fixture
def base(tmp_path: Path) -> str:
    """A folder with an identity; no model that anyone could train."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    return str(tmp_path / "base")


def scripted(base: str, *, limit: int = 3, max_failed: float = 0.05, **generate: Any) -> LoopSettings:
    made = {"limit": limit, "set": {**SCRIPTED, **generate.pop("set", {})}, **generate}
    return settings(model=base, judge="scripted", max_failed=max_failed, generate=made)


def happened(found: LoopSettings, here: Place, until: str = "begun train-dpo") -> list[str]:
    """Begun and ended steps, up to the one that the loop is left at: what begins there is not run."""
    said: list[str] = []
    with closing(run_loop(found, here)) as events:
        for event in events:
            match event:
                case Begun(step):
                    said.append(f"begun {step.name}")
                case Ended(step, _, before):
                    said.append(f"{'before' if before else 'ended'} {step.name}")
            if said[-1:] == [until]:
                break
    return said


def test_a_step_that_fails_names_its_log_and_command_and_the_loop_goes_on_there(base: str, tmp_path: Path) -> None:
    here = place(tmp_path / "mine")
    log = here.round(1) / "train-dpo.log"
    for _ in range(2):
        with pytest.raises(StepFailed) as failed:
            list(run_loop(scripted(base), here))
        assert "round 1: train-dpo ended with exit code" in str(failed.value)
        assert f"its log: {log}" in str(failed.value)
        assert "its command: rlaif train mine-r1 --method dpo" in str(failed.value)
    assert log.read_text().count("$ rlaif train") == 2
    assert len(log.read_text().splitlines()) > 2
    assert (here.round(1) / "generate.log").read_text().count("$ rlaif generate") == 1
    done = json.loads((here.round(1) / "generate.done.json").read_text())
    assert (done["exit"], done["step"]) == (0, "generate")
    assert done["seconds"] > 0
    assert json.loads(here.current.read_text())["model"] == base


def test_a_step_is_done_once_and_again_where_its_result_is_gone(base: str, tmp_path: Path) -> None:
    here = place(tmp_path / "mine")
    assert happened(scripted(base), here) == ["begun generate", "ended generate", "begun train-dpo"]
    assert happened(scripted(base), here) == ["before generate", "begun train-dpo"]
    here.summary("mine-r1").unlink()
    assert happened(scripted(base), here, "begun generate") == ["begun generate"]


def test_a_full_disk_and_a_folder_that_may_not_be_written_are_said(base: str, tmp_path: Path) -> None:
    here = place(tmp_path / "mine")
    here.round(1).mkdir(parents=True)
    (here.round(1) / "generate.log").symlink_to("/dev/full")
    with pytest.raises(StoreError, match=r"generate\.log cannot be written: No space left on device"):
        list(run_loop(scripted(base), here))
    assert json.loads(here.current.read_text())["model"] == base
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/mine/\.lock cannot be written: Not a directory"):
        list(run_loop(scripted(base), place(tmp_path / "file" / "mine")))


def test_a_step_that_is_killed_is_said_to_be(base: str, tmp_path: Path) -> None:
    step = steps(scripted(base), place(tmp_path / "mine"), 1, base, base)[0]
    assert "round 1: generate was ended by SIGKILL\n" in str(failure(step, Done("generate", "", "", -9, 1.0, "")))


def test_a_round_without_a_pair_says_so_before_it_trains_and_goes_on_with_those_of_another_export(
    base: str, tmp_path: Path
) -> None:
    here = place(tmp_path / "mine")
    found = scripted(base, set={"export.min_p": 1.0})
    said = r"round 1: nothing for dpo came of generate: .*mine-r1/dataset has no preference; .*base stays"
    with pytest.raises(RlaifError, match=said):
        list(run_loop(found, here))
    assert json.loads(here.current.read_text())["model"] == base
    export("mine-r1", runs_dir=here.runs_dir, set=["export.min_p=0.5", "export.require_consistent=false"])
    assert happened(found, here) == ["before generate", "begun train-dpo"]


def test_a_few_failed_records_do_not_stop_a_loop_and_more_do(base: str, tmp_path: Path) -> None:
    faulty = {"models.policy": {"provider": "scripted", "script": {"error_rate": 0.1}}}
    patient = scripted(base, limit=12, set=faulty, max_failed=0.9)
    assert "ended generate" in happened(patient, place(tmp_path / "patient"))
    with pytest.raises(StepFailed, match="generate ended with exit code 1"):
        happened(scripted(base, limit=12, set=faulty, max_failed=0.0), place(tmp_path / "strict"))


def test_another_model_in_the_same_folder_is_another_loop(base: str, tmp_path: Path) -> None:
    here = place(tmp_path / "mine")
    happened(scripted(base), here, "begun generate")
    Path(base, "config.json").write_text('{"other": 1}')
    with pytest.raises(ConfigError, match="model: what is in it has changed"):
        list(run_loop(scripted(base), here))


def test_changed_settings_are_refused_by_name_and_more_rounds_and_other_gates_are_not(
    base: str, tmp_path: Path
) -> None:
    here = place(tmp_path / "mine")
    happened(scripted(base), here, "begun generate")
    with pytest.raises(ConfigError) as refused:
        list(run_loop(scripted(base, limit=4).model_copy(update={"replay": 0.5}), here))
    assert "generate.limit: 3 -> 4" in str(refused.value)
    assert "replay: 0.0 -> 0.5" in str(refused.value)
    grown = settings(**{**scripted(base).model_dump(), "rounds": 5, "gates": {"harmful_rise": 0.2}})
    assert happened(grown, here, "begun generate") == ["begun generate"]
    assert yaml.safe_load(here.settings.read_text())["settings"]["rounds"] == 5


def test_a_file_with_other_content_is_another_loop(base: str, tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"prompt": "Why is the sky blue?"}\n')
    here = place(tmp_path / "mine")
    happened(scripted(base, prompts=str(prompts)), here, "begun generate")
    prompts.write_text('{"prompt": "Why is the sea blue?"}\n')
    with pytest.raises(ConfigError, match=r"generate.prompts: what is in it has changed"):
        list(run_loop(scripted(base, prompts=str(prompts)), here))


# --- ends ---

CHILD = """
import sys
from pathlib import Path
from rlaif.loop.plan import Place
from rlaif.loop.rounds import run_loop
from rlaif.loop.settings import load_loop

for event in run_loop(load_loop("slow.yaml")[1], Place(Path("mine"), Path("runs"))):
    print(event, flush=True)
"""
SLOW = """
model: base
judge: scripted
generate:
  pipeline: cai
  limit: 40
  set: {models.policy: {provider: scripted, script: {latency_ms: 300}, concurrency: 1}}
train: [dpo]
evaluate: {allow_seen: true}
"""


def slow(folder: Path) -> subprocess.Popen[str]:
    """A loop in a process of its own, whose first step takes a minute, once that step is at work."""
    (folder / "slow.yaml").write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    until = time.monotonic() + 60
    while not (folder / "runs" / "mine-r1" / "run.yaml").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
    return process


def owner(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "mine" / ".lock").read_text()))


def lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_handed_to_the_step_which_keeps_what_it_has(number: signal.Signals, tmp_path: Path) -> None:
    with slow(tmp_path) as process:
        step = owner(tmp_path)["process"]
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert not lives(step)
    summary = json.loads((tmp_path / "runs" / "mine-r1" / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert not (tmp_path / "mine" / "round-1" / "generate.done.json").exists()


@pytest.mark.usefixtures("base")
def test_a_second_loop_in_a_folder_is_refused_and_one_after_a_kill_waits_for_the_step(tmp_path: Path) -> None:
    with slow(tmp_path) as process:
        step = owner(tmp_path)["process"]
        with Lock(tmp_path / "mine" / ".lock") as lock, pytest.raises(StoreError, match=f"process {process.pid}"):
            list(lock.take())
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    assert lives(step)
    with Lock(tmp_path / "mine" / ".lock") as lock:
        waited = []
        for who in lock.take():
            waited.append(who)
            os.kill(step, signal.SIGINT)
    assert waited[0] == f"generate (process {step})"
    assert owner(tmp_path) == {"loop": os.getpid(), "step": None, "process": None}
