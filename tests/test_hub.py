"""A dataset of the hub or a folder gives its rows, is known by its content; a wrong address is told the right one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from rlaif.errors import ConfigError
from rlaif.export import About, ExportSettings, export_dataset
from rlaif.hub import HubPath, columns, fingerprint, parsed, rows
from tests.export.made import run

TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
README = """\
---
configs:
- config_name: easy
  data_files: [{split: train, path: easy.jsonl}]
- config_name: hard
  data_files: [{split: test, path: hard.jsonl}]
---
"""


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten questions to train with, three to test."""
    path = tmp_path / "questions"
    for split, n in {"train": 10, "test": 3}.items():
        questions = [{"prompt": f"{split} {i}?", "category": None if i else "first", "id": i} for i in range(n)]
        _jsonl(path / f"{split}.jsonl", questions)
    return path


def _jsonl(path: Path, values: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def prompts(path: str) -> list[Any]:
    return [row["prompt"] for row in rows(path, ["prompt"])]


@pytest.mark.parametrize(
    ("path", "parts"),
    {
        "hf://squad": ("squad", None, None),
        "hf://openbmb/UltraFeedback": ("openbmb/UltraFeedback", None, None),
        "hf://datasets/openbmb/UltraFeedback": ("openbmb/UltraFeedback", None, None),
        "hf://nyu-mll/glue/ax:test": ("nyu-mll/glue", "ax", "test"),
        "hf://nyu-mll/glue/ax:test[:10%]": ("nyu-mll/glue", "ax", "test[:10%]"),
        "hf://a/b:train[100:200]+test": ("a/b", None, "train[100:200]+test"),
        "hf://./runs/demo/dataset#preference:train[:5]": ("./runs/demo/dataset", "preference", "train[:5]"),
        "hf:///data/questions:test": ("/data/questions", None, "test"),
        "hf://../b#c": ("../b", "c", None),
        "hf://~/b": ("~/b", None, None),
        "hf://./10:30#1/": ("./10:30#1/", None, None),
        "hf://./10:30#1/#c:d": ("./10:30#1/", "c", "d"),
    }.items(),
)
def test_an_address_has_a_dataset_and_may_have_a_config_and_a_split(path: str, parts: tuple[str | None, ...]) -> None:
    assert parsed(path) == HubPath(*parts)


@pytest.mark.parametrize("path", ["hf://", "squad", "hf://a/b/c/d", "hf://a/b:", "hf://a b", "hf://a/b#c", "hf://a//c"])
def test_what_is_no_address_is_told_the_right_form(path: str) -> None:
    with pytest.raises(ConfigError, match=r"hf://OWNER/NAME\[/CONFIG\]\[:SPLIT\]"):
        parsed(path)


def test_a_folder_gives_the_rows_of_a_split_or_of_its_slices(folder: Path) -> None:
    path = f"hf://{folder}"
    assert columns(path) == ["prompt", "category", "id"]
    assert list(rows(path, ["category", "prompt"]))[:2] == [
        {"category": "first", "prompt": "train 0?"},
        {"category": None, "prompt": "train 1?"},
    ]
    assert len(prompts(path)) == 10
    assert prompts(f"{path}:test") == ["test 0?", "test 1?", "test 2?"]
    assert prompts(f"{path}:train[:20%]") == ["train 0?", "train 1?"]
    assert prompts(f"{path}:train[8:]+test[1:2]") == ["train 8?", "train 9?", "test 1?"]


def test_a_folder_may_be_relative_and_the_only_split_needs_no_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "train.jsonl").unlink()
    monkeypatch.chdir(folder.parent)
    assert prompts(f"hf://./{folder.name}") == ["test 0?", "test 1?", "test 2?"]


def test_the_dataset_of_a_run_gives_the_prompts_of_the_next(tmp_path: Path) -> None:
    about = About(run="demo", constitution_name="safety", constitution_version="1.0")
    summary = export_dataset(run(40), tmp_path / "dataset", ExportSettings(), about=about)
    path = f"hf://{tmp_path}/dataset#preference"
    asked = prompts(f"{path}:train+test")
    assert len(asked) == summary.pairs == 40
    assert [{"role": "user", "content": "Question 0: how do I open it?"}] in asked
    assert set(columns(path)) >= {"prompt", "chosen", "rejected"}
    with pytest.raises(ConfigError, match=r"there are: preference, .*; write hf://.*/dataset#preference:train$"):
        columns(f"hf://{tmp_path}/dataset:train")
    with pytest.raises(ConfigError, match="no configuration 'pref'; there are: preference, sft"):
        columns(f"hf://{tmp_path}/dataset#pref")


def test_what_save_to_disk_made_is_read_too(tmp_path: Path) -> None:
    one = datasets.Dataset.from_dict({"prompt": ["a", "b", "c"]})
    one.select([2, 0]).save_to_disk(tmp_path / "one")
    datasets.DatasetDict(dev=one, test=one).save_to_disk(tmp_path / "two")
    assert prompts(f"hf://{tmp_path}/one") == ["c", "a"]
    assert prompts(f"hf://{tmp_path}/two:dev[1:]") == ["b", "c"]
    with pytest.raises(ConfigError, match="no split 'train'; there are: dev, test; put one at the end, as in :dev"):
        prompts(f"hf://{tmp_path}/two")
    with pytest.raises(ConfigError, match="has no configurations; leave out '#x'"):
        prompts(f"hf://{tmp_path}/one#x")


def test_messages_are_a_list_of_dicts_however_the_dataset_keeps_them(tmp_path: Path) -> None:
    structs = pa.table({"prompt": [TURNS]})
    lists = pa.table({"prompt": [{"role": ["system", "user"], "content": ["Be brief.", "Hi"]}]})
    for name, table in {"structs": structs, "lists": lists}.items():
        (tmp_path / name).mkdir()
        parquet.write_table(table, tmp_path / name / "train.parquet")
    # Fields of two types: the library then keeps each message as JSON.
    _jsonl(tmp_path / "mixed" / "train.jsonl", [{"prompt": [{**TURNS[0], "n": 1}, {**TURNS[1], "n": "two"}]}])
    assert prompts(f"hf://{tmp_path}/structs") == prompts(f"hf://{tmp_path}/lists") == [TURNS]
    assert prompts(f"hf://{tmp_path}/mixed") == [[{**TURNS[0], "n": 1}, {**TURNS[1], "n": "two"}]]
    assert fingerprint(f"hf://{tmp_path}/structs", ["prompt"]) == fingerprint(f"hf://{tmp_path}/lists", ["prompt"])


def test_the_fingerprint_is_of_the_wanted_content_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    first = fingerprint(f"hf://{folder}", ["prompt", "category"])
    assert re.fullmatch("[0-9a-f]{32}", first)
    same = datasets.load_dataset(str(folder), split="train")
    (tmp_path / "shards").mkdir()
    for i in range(2):
        same.shard(2, i, contiguous=True).remove_columns("id").to_parquet(tmp_path / "shards" / f"train-{i}.parquet")
    assert fingerprint(f"hf://{tmp_path}/shards", ["prompt", "category"]) == first
    assert fingerprint(f"hf://{tmp_path}/shards", ["prompt"]) != first
    assert fingerprint(f"hf://{folder}:train[:9]", ["prompt", "category"]) != first
    train = folder / "train.jsonl"
    train.write_text(train.read_text().replace("train 7?", "train 7!"))
    assert fingerprint(f"hf://{folder}", ["prompt", "category"]) != first


@pytest.mark.parametrize("split", ["dev", "train[:10", "train[5]", "train+dev", "all"])
def test_an_unknown_split_is_told_those_that_are(folder: Path, split: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"no split '{split}'; there are: train, test; put one at the end")):
        prompts(f"hf://{folder}:{split}")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("train.parquet", "none", "cannot be loaded: Parquet"),
        ("train.jsonl", '{"prompt": "a"}\n{"prompt', "cannot be loaded: JSON parse error"),
        ("README.md", "---\nconfigs: [\n---\n", "cannot be loaded: while parsing"),
        ("notes.xyz", "none", "cannot be loaded: "),
    ],
)
def test_a_folder_that_cannot_be_loaded_is_one_line(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=says) as caught:
        prompts(f"hf://{tmp_path}")
    assert str(caught.value).startswith(f"hf://{tmp_path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_folder_and_a_file_format_are_no_datasets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match="no folder nowhere; give that of a dataset, or hf://OWNER/NAME"):
        columns("hf://./nowhere")
    with pytest.raises(ConfigError, match="'json' is a file format"):
        columns("hf://json")  # else load_dataset reads the current folder


# --- the hub: a process of its own, as the libraries read their settings when they are imported ---

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"README.md": README, "easy.jsonl": '{"prompt": "one"}\n{"prompt": "two"}\n', "hard.jsonl": '{"prompt": "3"}\n'}
ASK = """
import sys
from rlaif.errors import ConfigError
from rlaif.hub import columns, fingerprint, rows
assert "datasets" not in sys.modules
for path in sys.argv[1:]:
    try:
        print(columns(path), list(rows(path, ["prompt"])), len(fingerprint(path, ["prompt"])))
    except ConfigError as error:
        print(error)
"""


@contextmanager
def hub() -> Iterator[tuple[str, list[str]]]:
    """The address of a hub with one dataset, `owner/name`, and a gate to others; and the paths it was asked for."""
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = urlsplit(self.path).path
            asked.append(path)
            status, body, error = _answer(path)
            self.send_response(status)
            for name, value in {"X-Error-Code": error, "X-Repo-Commit": COMMIT, "ETag": _oid(body)}.items():
                if value:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body.encode())

        do_HEAD = do_POST = do_GET

        def log_message(self, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def _answer(path: str) -> tuple[int, str, str | None]:
    if "gated/" in path:
        return 401, "", "GatedRepo"
    if "owner/name" not in path:
        return 404, "", "RepoNotFound"
    if "/tree/" in path:
        files = [{"type": "file", "oid": _oid(text), "size": len(text), "path": name} for name, text in FILES.items()]
        return 200, json.dumps(files), None
    if path.startswith("/api/"):
        return 200, json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": []}), None
    text = FILES.get(path.rpartition("/")[2])
    return (200, text, None) if text else (404, "", "EntryNotFound")


def _oid(text: str) -> str:
    return sha1(text.encode()).hexdigest()


def ask(home: Path, *paths: str, **environment: str) -> list[str]:
    """What a process of its own says of each address; it says nothing else, on stderr neither."""
    quiet = {"HF_UPDATE_DOWNLOAD_COUNTS": "0", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ASK, *paths],
        env={**os.environ, **quiet, "HF_HOME": str(home), **environment},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_the_hub_is_asked_once_a_run_and_not_again_offline(tmp_path: Path) -> None:
    with hub() as (address, asked):
        there = ask(tmp_path, "hf://owner/name/easy", HF_ENDPOINT=address, HF_HUB_OFFLINE="0")
    assert there == ["['prompt'] [{'prompt': 'one'}, {'prompt': 'two'}] 32"]
    assert sum(path.endswith("/easy.jsonl") for path in asked) == 2  # HEAD and GET
    assert sum(path.endswith("/main/README.md") for path in asked) == 2
    assert ask(tmp_path, "hf://owner/name/easy", HF_HUB_OFFLINE="1") == there


def test_what_the_hub_refuses_is_a_line_with_the_way_out(tmp_path: Path) -> None:
    paths = [
        "hf://owner/nope",
        "hf://gated/data",
        "hf://owner/name",
        "hf://owner/name/no:test",
        "hf://owner/name/hard:no",
    ]
    with hub() as (address, _):
        assert ask(tmp_path, *paths, HF_ENDPOINT=address, HF_HUB_OFFLINE="0") == [
            "hf://owner/nope: there is no such dataset on the hub; check the name, and set HF_TOKEN if it is private",
            "hf://gated/data: is gated; accept its terms on its page, and set HF_TOKEN to a token of yours",
            "hf://owner/name: has several configurations; there are: easy, hard; write hf://owner/name/easy",
            "hf://owner/name/no:test: no configuration 'no'; there are: easy, hard; write hf://owner/name/easy:test",
            "hf://owner/name/hard:no: no split 'no'; there are: test; put one at the end, as in :test or :test[:10%]",
        ]


def test_offline_the_error_names_the_variable(tmp_path: Path) -> None:
    (said,) = ask(tmp_path, "hf://squad", HF_HUB_OFFLINE="1")
    assert said.startswith("hf://squad: not in the cache, and HF_HUB_OFFLINE forbids to fetch it; ")


def test_two_folders_of_one_name_and_one_that_changed_are_each_read_as_they_are(tmp_path: Path) -> None:
    card = "---\nconfigs:\n- config_name: easy\n  data_files: [{split: train, path: 'easy/*.jsonl'}]\n---\n"

    def read(name: str) -> set[str]:
        return {row["prompt"] for row in rows(f"hf://{tmp_path}/{name}/dataset#easy", ["prompt"])}

    for name, prompt in (("one", "a"), ("two", "b"), ("one", "c")):
        folder = tmp_path / name / "dataset"
        (folder / "easy").mkdir(parents=True, exist_ok=True)
        (folder / "README.md").write_text(card)
        (folder / "easy" / "x.jsonl").write_text(f'{{"prompt": "{prompt}"}}\n' * (3 if prompt == "c" else 2))
        assert read(name) == {prompt}
    assert read("two") == {"b"}
