"""`rlaif train` says at once what cannot be trained, and leaves alone what is done; nothing here loads torch."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import signal
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path

import pytest

from rlaif.errors import ConfigError, StoreError
from rlaif.resources import find
from rlaif.train import training
from rlaif.train.data import gathered
from rlaif.train.failures import Failure, failure_of, note, noted
from rlaif.train.methods import METHODS, checked, defaults, method_of
from rlaif.train.online import OnlineSettings, check_online
from rlaif.train.options import options_of
from rlaif.train.settings import CHECKPOINTS, LOG, Training, TrainSettings, read_training, write_training
from rlaif.train.training import base_of, begin
from tests.cli.command import Command

RECIPES = ["sft", "dpo", "dpo-soft", "kto", "reward", "orpo", "grpo", "rloo"]


@pytest.fixture
def rlaif(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """In a folder with a file of pairs and what looks like a model."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "chat_template.jinja").write_text("{{ messages }}")
    rows = [
        {
            "prompt": [{"role": "user", "content": f"Question {i}?"}],
            "chosen": [{"role": "assistant", "content": "Yes."}],
            "rejected": [{"role": "assistant", "content": "No."}],
        }
        for i in range(4)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return Command(tmp_path, capsys, monkeypatch)


DPO = ("train", "pairs.jsonl", "--method", "dpo", "--model", "model")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "pairs.jsonl"), "say how to train: --method sft, dpo"),
        (("train", "pairs.jsonl", "--method", "ppo"), "no PPO any more; --method rloo or grpo"),
        (("train", "pairs.jsonl", "--method", "dop"), "unknown method 'dop'; did you mean 'dpo'?"),
        (("train", "pairs.jsonl", "--method", "sft", "--soft"), "--soft is for --method dpo, not sft"),
        (("train", "pairs.jsonl", "--method", "orpo"), "--set orpo.experimental=true"),
        (("train", "nothing", "--method", "dpo"), "no run 'nothing' in runs"),
        (("train", "", "--method", "dpo"), "no run '' in runs"),
        (("train", "pairs.jsonl", "pairs.jsonl", "--method", "dpo"), "pairs.jsonl is named twice"),
        ((*DPO, "--set", "kto.beta=1"), "the method is dpo; say --set dpo.beta, or --method kto"),
        ((*DPO, "--set", "beta"), "write key=value"),
        ((*DPO, "--set", "model_name_or_path=x"), "say it with --model"),
        ((*DPO, "--set", "watch.stopp=true"), "watch.stopp: unknown; did you mean 'stop'?"),
        ((*DPO, "--set", "watch.window=0"), "watch.window: Input should be greater"),
        ((*DPO, "--set", "dpo.soft=7"), "dpo.soft: it is true or false, not 7"),
        ((*DPO, "--set", "label_smoothing=0.1"), "does nothing with the loss sigmoid; add --set dpo.loss_type=robust"),
        ((*DPO, "--set", "loss_type=robust", "--set", "label_smoothing=0.5"), "share of flipped labels, below 0.5"),
        ((*DPO, "--set", "beta=-1"), "beta=-1: it must be over 0"),
        ((*DPO, "--set", "gradient_accumulation_steps=0"), "gradient_accumulation_steps=0: it must be over 0"),
        ((*DPO, "--full", "--merge"), "--merge is for --lora"),
        ((*DPO, "--reward", "x"), "are for grpo and rloo; dpo learns from DATA alone"),
        ((*DPO, "--recipe", "nothing"), "train/nothing"),
        (("train", "pairs.jsonl", "--method", "grpo", "--model", "model"), "grpo needs a reward: --reward FOLDER"),
        ((*DPO, "--soft"), "no row is left to train on (4 no p)"),
    ],
)
def test_what_cannot_be_trained_is_said_in_a_line(arguments: tuple[str, ...], said: str, rlaif: Command) -> None:
    done = rlaif(*arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert not list(rlaif.folder.glob("models*"))


def test_a_model_without_a_chat_template_or_without_weights_of_its_own_is_refused(rlaif: Command) -> None:
    (rlaif.folder / "model" / "chat_template.jinja").unlink()
    assert "no chat template; choose an instruct model" in rlaif(*DPO).err
    (rlaif.folder / "model" / "config.json").rename(rlaif.folder / "model" / "adapter_config.json")
    assert "model is an adapter, not a whole model; write the model with --merge" in rlaif(*DPO).err


# --- recipes ---


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_is_by_whom_how_it_is_run_and_what_it_costs(name: str) -> None:
    head = re.match(r"(?:#.*\n)+", find("pipelines", f"train/{name}").read_text())
    assert head is not None
    assert f"rlaif train RUN --recipe {name}" in head[0]
    assert re.search(r"arXiv:\d{4}\.\d{5}", head[0])
    assert "Cost: " in head[0]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_for_lora_and_agrees_with_our_defaults(name: str) -> None:
    method = method_of(name.partition("-")[0])
    options = options_of(method, find("pipelines", f"train/{name}"), [])
    ours = defaults(method, lora=True, cpu=False, tests=False)
    both = ours.keys() & options.trl.keys() - {"lora_target_modules", "per_device_train_batch_size"}
    both -= {"gradient_accumulation_steps"}
    assert options.lora
    assert {key: options.trl[key] for key in both} == {key: ours[key] for key in both}
    assert "learning_rate" in both


def test_options_come_from_the_recipe_and_set_wins_with_and_without_the_methods_name(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("learning_rate: 5e-7\nbeta: 0.3\noutput_dir: x\nuse_peft: false\nmodel_name_or_path: m\n")
    assignments = ["dpo.beta=2e-1", "max_steps=3", "model_init_kwargs.dtype=bfloat16", "watch.stop=true"]
    found = options_of("dpo", recipe, assignments)
    wanted = {"learning_rate": 5e-7, "beta": 0.2, "max_steps": 3, "model_init_kwargs": {"dtype": "bfloat16"}}
    assert found.trl == wanted
    assert (found.model, found.lora, found.unused, found.watch.stop) == ("m", False, ("output_dir",), True)


def test_lora_learns_ten_times_as_fast_and_only_a_cpu_is_told_to_be_one() -> None:
    for method in METHODS:
        full, lora = (defaults(method, lora=lora, cpu=True, tests=True) for lora in (False, True))
        assert lora["learning_rate"] == pytest.approx(10 * full["learning_rate"])
        assert (full["use_cpu"], full["bf16"]) == (True, False)
        assert "use_cpu" not in defaults(method, lora=False, cpu=False, tests=True)


@pytest.mark.parametrize("option", ["loss_type", "label_smoothing", "f_divergence_type"])
def test_soft_labels_take_no_other_loss(option: str) -> None:
    with pytest.raises(ConfigError, match=f"leave out {option}, or --soft"):
        checked("dpo", {option: "robust"}, soft=True)


# --- the folder ---


def finished(rlaif: Command, out: str = "models/pairs-dpo") -> Path:
    """As if the command had run: begun by it, and done by a child."""
    folder = rlaif.folder / out
    begun = rlaif(*DPO, "--set", "report_to=nobody")  # refused after all else was checked
    assert "no tracker 'nobody'" in begun.err or "training needs torch" in begun.err
    found = gathered(["pairs.jsonl"], "dpo", Path("runs"))
    settings = TrainSettings(method="dpo", base=base_of("model", Path("runs"), found.train, {}), data=found.data)
    folder.mkdir(parents=True)
    write_training(folder, Training(**dict(settings), steps=3, done=True))
    return folder


def test_a_finished_model_is_said_and_left_alone(rlaif: Command) -> None:
    folder = finished(rlaif)
    before = (folder / "training.json").read_bytes()
    done = rlaif(*DPO)
    assert (done.code, done.err) == (0, "")
    assert "models/pairs-dpo is there already, of the same settings" in done.out
    assert (folder / "training.json").read_bytes() == before


def test_other_settings_for_the_same_folder_are_refused_with_what_differs(rlaif: Command) -> None:
    finished(rlaif)
    done = rlaif(*DPO, "--set", "beta=0.3")
    assert done.code == 2
    assert "options.beta: None -> 0.3" in done.err
    assert "name another --out" in done.err
    (rlaif.folder / "pairs.jsonl").write_text((rlaif.folder / "pairs.jsonl").read_text().replace("Yes", "Well"))
    assert "data[0].digest: " in rlaif(*DPO).err


def test_a_folder_that_no_training_wrote_is_left_alone(rlaif: Command) -> None:
    (rlaif.folder / "mine").mkdir()
    (rlaif.folder / "mine" / "letter.txt").touch()
    done = rlaif(*DPO, "--out", "mine")
    assert done.code == 2
    assert "mine holds no training" in done.err


def test_what_was_begun_binds_once_there_is_a_checkpoint(rlaif: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(rlaif.folder)
    found = gathered(["pairs.jsonl"], "dpo", Path("runs"))
    partial = rlaif.folder / "partial"
    partial.mkdir()
    settings = [TrainSettings(method="dpo", data=found.data, options={"beta": beta}) for beta in (0.1, 0.2)]
    assert [begin(partial, one, found, []).options["beta"] for one in settings] == [0.1, 0.2]
    (partial / CHECKPOINTS / "checkpoint-1").mkdir()
    assert begin(partial, settings[1], found, ["said anew"]).warnings == ()
    with pytest.raises(ConfigError, match=r"options\.beta: 0\.2 -> 0\.1"):
        begin(partial, settings[0], found, [])


def test_models_count_by_what_they_are_and_a_higher_limit_is_the_one_that_holds(
    rlaif: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(rlaif.folder)
    found = gathered(["pairs.jsonl"], "grpo", Path("runs"))
    partial = rlaif.folder / "partial"
    partial.mkdir()

    def wanted(model: str, reward: str, runs: str, usd: float) -> TrainSettings:
        online = {"reward": [reward], "runs_dir": runs, "max_cost_usd": usd}
        named = check_online(OnlineSettings.model_validate(online))
        base = base_of(model, Path(runs), found.train, {})
        return TrainSettings(method="grpo", base=base, data=found.data, online=online, rewarded_by=named)

    begin(partial, wanted("model", "model", "runs", 1.0), found, [])
    (partial / CHECKPOINTS / "checkpoint-1").mkdir()
    copied = shutil.copytree("model", "moved")
    begin(partial, wanted(f"./{copied}", copied, "other", 5.0), found, [])
    begun = read_training(partial)
    assert (begun.base.model, begun.online["runs_dir"], begun.online["max_cost_usd"]) == ("./moved", "other", 5.0)
    Path(copied, "model.safetensors").write_bytes(b"others")
    with pytest.raises(ConfigError, match=r"rewarded_by\[0\]: reward:\w+ -> reward:\w+"):
        begin(partial, wanted("model", copied, "runs", 1.0), found, [])


def test_a_judge_counts_with_what_it_judges_by(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    text = find("constitutions", "safety").read_text()
    named = []
    for content in (text, f"# the same\n{text}", text.replace("harm", "hurt")):
        mine.write_text(content)
        named.append(check_online(OnlineSettings(reward=("judge:scripted",), constitution=str(mine))))
    assert named[0] == named[1] != named[2]


def test_a_folder_in_the_way_is_not_emptied(rlaif: Command) -> None:
    mine = rlaif.folder / "models" / "pairs-dpo.partial"
    mine.mkdir(parents=True)
    (mine / "letter.txt").touch()
    found = gathered([str(rlaif.folder / "pairs.jsonl")], "dpo", Path("runs"))
    with pytest.raises(ConfigError, match=r"pairs-dpo\.partial is in the way, with letter\.txt in it"):
        begin(mine, TrainSettings(method="dpo"), found, [])
    assert (mine / "letter.txt").exists()


@pytest.mark.parametrize(
    ("out", "code", "said"),
    [
        ("pairs.jsonl", 2, "pairs.jsonl is a file; name a folder that is to be made"),
        ("pairs.jsonl/x", 1, "Not a directory; make room or name another --out"),
        ("x" * 300, 1, "File name too long"),
    ],
)
def test_a_folder_that_cannot_be_made_is_said(
    out: str, code: int, said: str, rlaif: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_check_installed", lambda settings: None)
    done = rlaif(*DPO, "--out", out)
    assert (done.code, done.out) == (code, "")
    assert said in done.err


# --- several GPUs ---


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,3")


def test_a_layout_that_cannot_be_used_is_said_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl", reason="the layouts are TRL's")
    monkeypatch.setattr(training, "_devices", lambda: 0)
    with pytest.raises(ConfigError, match=r"no such file; known: fsdp1, fsdp2, .*, or FILE\.yaml"):
        training._command("zero9")
    with pytest.raises(ConfigError, match=r"fsdp2 is for NVIDIA's GPUs, and none was found: .*CUDA_VISIBLE_DEVICES"):
        training._command("fsdp2")
    mine = tmp_path / "mine.yaml"
    for text, said in (("a: 1", "no distributed_type in it"), ("{", "mine.yaml:2: "), ("", "the file is empty")):
        mine.write_text(text)
        with pytest.raises(ConfigError, match=said):
            training._command(str(mine))
    mine.write_text("distributed_type: DEEPSPEED\nnum_processes: 2\n")
    if not find_spec("deepspeed"):
        with pytest.raises(ConfigError, match="needs DeepSpeed; run: pip install deepspeed"):
            training._command(str(mine))


@pytest.mark.parametrize(
    ("layout", "processes", "wanted"),
    [
        ("zero3", 3, {"use_deepspeed": True, "zero_stage": 3}),
        ("fsdp2", 3, {"use_fsdp": True, "fsdp_version": 2}),
        ("multi_gpu", 3, {"multi_gpu": True}),
        ("single_gpu", 1, {"multi_gpu": False, "use_fsdp": False}),
    ],
)
def test_accelerate_reads_a_layout_as_it_is_meant(
    layout: str, processes: int, wanted: dict[str, object], gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = pytest.importorskip("accelerate.commands.launch")
    pytest.importorskip("trl", reason="the layouts are TRL's")
    monkeypatch.setattr(training, "find_spec", lambda name: find_spec("json" if name == "deepspeed" else name))
    command = training._command(layout)
    start = command.index("accelerate.commands.launch") + 1
    args, _, _ = launch._validate_launch_command(
        launch.launch_command_parser().parse_args([*command[start:], "F/training.json"])
    )
    assert (args.num_processes, args.module) == (processes, True)
    assert (args.training_script, args.training_script_args) == ("rlaif.train.child", ["F/training.json"])
    assert {name: getattr(args, name) for name in wanted} == wanted


def test_a_training_reads_back_as_it_was_written_and_no_number_is_null(tmp_path: Path) -> None:
    training = Training(method="dpo", options={"beta": 0.1}, final={"loss": float("nan"), "step": 3.0}, done=True)
    write_training(tmp_path, training)
    assert json.loads((tmp_path / "training.json").read_text())["final"] == {"loss": None, "step": 3.0}
    assert read_training(tmp_path).settings == training.settings
    (tmp_path / "training.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_training(tmp_path)


def test_one_folder_is_trained_by_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_LOCK_S", 0.1)
    with (tmp_path / ".lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="is being trained by another process"), training._locked(tmp_path):
            pass
    with training._locked(tmp_path):
        pass


# --- what went wrong in the child ---


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory with batches of 4 rows of up to 512 tokens; try --set per_device"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (ValueError("tokenizer.chat_template is not set"), "no chat template; choose an instruct model"),
        (ModuleNotFoundError("No module named 'bitsandbytes'", name="bitsandbytes"), "bitsandbytes is not installed"),
        (PackageNotFoundError("The 'x>=1' was not found."), "a package is missing: No package metadata"),
        (OSError(28, "No space left on device", "/x"), "No space left on device: '/x'; make room"),
        (ConfigError("the loss of step 3 is nan"), "the loss of step 3 is nan"),
        (ValueError("two\nlines"), "ValueError: two lines"),
    ],
)
def test_a_failure_is_one_line(error: BaseException, said: str) -> None:
    found = failure_of(error, {"per_device_train_batch_size": 4, "max_length": 512})
    assert said in found.line
    assert "\n" not in found.line
    assert found.settings == isinstance(error, ConfigError)


def test_a_child_says_why_it_ended_and_one_that_cannot_is_known_by_its_code(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINTS).mkdir()
    assert "memory runs out" in noted(tmp_path, 128 + signal.SIGKILL).line
    assert "SIGTERM" in noted(tmp_path, 128 + signal.SIGTERM).line
    (tmp_path / LOG).write_text("Traceback\nValueError: no such port\n\n")
    assert noted(tmp_path, 3).line == "it ended with exit code 3: ValueError: no such port"
    note(tmp_path, Failure("first", settings=True))
    note(tmp_path, Failure("second, for the first is gone"))
    assert noted(tmp_path, 1) == ("first", True)
