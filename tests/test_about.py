"""What is published of a run makes it again, and gives away no key, no address and no folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import rlaif
from rlaif.about import LEFT_OUT, about_run, public
from rlaif.api import export
from rlaif.backends import ModelSpec
from rlaif.config import Settings, load_settings
from rlaif.constitution import load_constitution
from rlaif.models import display_name
from rlaif.runs import meaning_of, read_summary, settings_of
from rlaif.store import RunFolder

OWN = """
name: mine
constitution: {constitution}
prompts: {{path: {prompts}, name: mine}}
models:
  policy: {{provider: scripted, script: {{seed: 4}}}}
  judge: scripted
stages:
  - sample: {{n: 2}}
  - revise: {{rounds: 1}}
  - judge: {{by: [pairwise, {{kind: pairwise, reasoning: true}}]}}
"""


@pytest.fixture
def own(tmp_path: Path) -> RunFolder:
    """A run with a constitution, prompts and a pipeline of the user's own, in a folder of the user's own."""
    home = tmp_path / "home" / "secret-project"
    home.mkdir(parents=True)
    principles = "principles: [{id: kind, critique: Is it kind?, revision: Be kind., judge: Which is kinder?}]"
    (home / "rules.yaml").write_text(f"name: rules\nversion: '2'\nlicence: MIT\n{principles}\n")
    (home / "asked.jsonl").write_text("".join(json.dumps({"prompt": f"Question {i}?"}) + "\n" for i in range(4)))
    (home / "mine.yaml").write_text(OWN.format(constitution=home / "rules.yaml", prompts=home / "asked.jsonl"))
    rlaif.generate(str(home / "mine.yaml"), run="own", runs_dir=tmp_path / "runs")
    return RunFolder(tmp_path / "runs", "own")


def texts(folder: Path) -> str:
    return "\n".join(path.read_text() for path in folder.iterdir() if path.is_file())


def test_the_files_beside_the_card_make_the_same_run(own: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    published = texts(own.dataset)
    assert "secret-project" not in published
    assert str(own.path.parent) not in published
    pipeline = yaml.safe_load((own.dataset / "pipeline.yaml").read_text())
    assert (pipeline["constitution"], pipeline["prompts"][0]["path"]) == ("constitution.yaml", "asked.jsonl")
    source = own.path.parent.parent / "home" / "secret-project" / "asked.jsonl"
    (own.dataset / "asked.jsonl").write_bytes(source.read_bytes())
    monkeypatch.chdir(own.dataset)
    rlaif.generate("pipeline.yaml", run="again", runs_dir=own.path.parent.parent / "elsewhere")
    again = RunFolder(own.path.parent.parent / "elsewhere", "again")
    assert meaning_of(again) == meaning_of(own)
    assert list(again.records()) == list(own.records())


def test_a_constitution_that_was_edited_since_is_taken_from_the_runs_own_copy(own: RunFolder) -> None:
    rules = own.path.parent.parent / "home" / "secret-project" / "rules.yaml"
    made_with = meaning_of(own)["constitution"]["hash"]
    rules.write_text(rules.read_text().replace("Be kind.", "Be very kind."))
    export("own", runs_dir=own.path.parent)
    assert load_constitution(own.dataset / "constitution.yaml").fingerprint == made_with
    own.constitution.unlink()
    export("own", runs_dir=own.path.parent)
    assert not (own.dataset / "constitution.yaml").exists()
    card = (own.dataset / "README.md").read_text()
    assert made_with in card
    assert "Be very kind." not in card


def test_the_templates_that_asked_are_shown_as_long_as_they_are_the_runs(own: RunFolder) -> None:
    about = about_run(own, settings_of(own), meaning_of(own), read_summary(own))
    asked = ["critique", "revise", "judge_pairwise", "judge_pairwise_reason", "judge_pairwise_decide"]
    assert list(about.templates) == asked
    assert "--- include judge_examples.jinja" in about.templates["judge_pairwise"]
    assert "Worked" in about.templates["judge_pairwise"] or "example" in about.templates["judge_pairwise"].lower()
    changed = meaning_of(own) | {"templates": "0" * 16}
    assert about_run(own, settings_of(own), changed, {}).templates == {}


SECRETS = {
    "judge": {
        "provider": "openai",
        "model": "/srv/models/acme-internal/big-judge",
        "base_url": "http://gpu-17.corp.example:8000/v1",
        "api_key_env": "ACME_KEY",
        "headers": {"X-Auth": "$ACME_TOKEN"},
        "extra_body": {
            "user_token": "abc",
            "max_tokens": 7,
            "path": "~/acme/x.json",
            "key": "hf_" + "a" * 30,
            "auth": {"as": "abc"},
        },
        "fallback": {"provider": "openai", "model": "b", "base_url": "https://10.1.2.3/v1"},
    },
    "policy": {"provider": "openai", "model": "gpt-4.1", "base_url": "https://api.openai.com/v1"},
    "fleet": {
        "provider": "openai",
        "model": "c",
        "endpoints": ["http://10.0.0.1/v1", "http://10.0.0.2/v1"],
        "identity": "http://10.0.0.1/v1#c",
    },
}


def test_addresses_keys_and_folders_are_left_out(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {
            "name": "mine",
            "models": SECRETS,
            "prices": "/home/me/prices.yaml",
            "ray": {"address": "head.corp.example:6379"},
            "templates": {"critique": "/home/me/acme/critique.jinja"},
            "stages": ["sample", {"judge": {}}, {"my.module:Stage": {"folder": "--to=/home/me/out", "api_key": "k3y"}}],
        }
    )
    identities = {role: {"identity": f"{spec.base_url}#{spec.model}"} for role, spec in settings.models.items()}
    meaning: dict[str, Any] = {
        "constitution": {"name": "safety", "version": "1", "licence": "MIT", "language": "en", "hash": "0"},
        "prompts": {"file": "/home/me/x"},
        "templates": "0",
        "models": identities,
        "key_version": 1,
    }
    summary = {
        "funnel": {"failed": {"judge: http://gpu-17.corp.example refused": 1}},
        "failures": [{"detail": "/home/me/x"}],
        "prices": {"file": "/home/me/prices.yaml"},
    }
    about = about_run(RunFolder(tmp_path, "run"), settings, meaning, summary)
    said = str(about)
    for secret in ("corp", "10.0.0", "10.1.2", "ACME", "acme", "/home", "~/", "abc", "hf_", "k3y", "/srv", "prices"):
        assert secret not in said, secret
    pipeline = yaml.safe_load(about.settings)
    assert pipeline["models"]["judge"]["base_url"] == LEFT_OUT
    assert pipeline["models"]["judge"]["fallback"]["base_url"] == LEFT_OUT
    assert pipeline["models"]["fleet"]["base_url"] == LEFT_OUT
    assert pipeline["models"]["policy"]["base_url"] == "https://api.openai.com/v1"
    assert pipeline["models"]["judge"]["extra_body"]["max_tokens"] == 7
    assert pipeline["stages"][2] == {"my.module:Stage": {"folder": "--to=out", "api_key": "left-out"}}
    assert about.identities["judge"] == f"{LEFT_OUT}#big-judge"
    (tmp_path / "pipeline.yaml").write_text(about.settings)
    assert load_settings(str(tmp_path / "pipeline.yaml"), {}).models["judge"].base_url == LEFT_OUT


def test_a_model_that_its_server_calls_by_a_folder_is_called_by_its_name_in_rows_too() -> None:
    for name in ("/srv/models/acme/big-judge", "/srv/models/acme/big-judge/"):
        assert display_name(ModelSpec(provider="openai", model=name)) == "big-judge"
    assert display_name(ModelSpec(provider="openai", model="acme/big-judge")) == "acme/big-judge"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://api.anthropic.com#m", "https://api.anthropic.com#m"),
        ("anthropic:https://proxy.corp/v1#m", f"anthropic:{LEFT_OUT}#m"),
        ("local:SmolLM2@0123456789ab", "local:SmolLM2@0123456789ab"),
        ("vllm:OWNER/NAME@main", "vllm:OWNER/NAME@main"),
        ("hf://OWNER/NAME:train", "hf://OWNER/NAME:train"),
        ("hf://./mine/x", "hf://./mine/x"),
        ("hf:///data/me/questions#c:train", "hf://./questions#c:train"),
        ("hf://~/questions", "hf://./questions"),
        ("and/or", "and/or"),
        ("/end", "/end"),
        ("/home/me/a b.jsonl", "a b.jsonl"),
        ("C:\\Users\\me\\x.yaml", "x.yaml"),
        ("file:///home/me/x.yaml", "x.yaml"),
        ("/home/my own/a, b/my x.yaml", "my x.yaml"),
        ("C:\\Users\\my own\\x.yaml", "x.yaml"),
        ("~me/x.yaml", "x.yaml"),
        ("../../me/x.yaml", "x.yaml"),
        ("hf:///home/my own/questions", "hf://./questions"),
        ("/no_think Say yes/no and/or why.", "/no_think Say yes/no and/or why."),
        ("https://api.openai.com/v1?code=abc#m", "https://api.openai.com/v1#m"),
        ("https://me:abc@api.openai.com/v1", LEFT_OUT),
        ("HTTPS://gpu.corp/v1", LEFT_OUT),
        ("postgres://me:abc@db/x", LEFT_OUT),
        ("skills-and-knowledge-set", "skills-and-knowledge-set"),
        ("skywork-reward-llama-3.1-8b", "skywork-reward-llama-3.1-8b"),
        ("github_pat_" + "1a" * 20, "left-out"),
    ],
)
def test_what_says_nothing_of_this_machine_stays(text: str, shown: str) -> None:
    assert public(text) == shown
