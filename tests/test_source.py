"""Prompts come from any of the usual files, whole, once each, and a bad row is named."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.errors import ConfigError
from rlaif.resources import names
from rlaif.source import PromptReader, Prompts, fingerprint, read_prompts
from rlaif.types import Message, Record, Response, prompt_id

Rows = Sequence[Mapping[str, Any]]
TWO_TURNS = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi: what is it?"},
    {"role": "user", "content": "Go on"},
]


def write(path: Path, rows: Rows) -> Path:
    """The rows in the format of the suffix."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(list(rows)), path)
    elif ".csv" in path.suffixes:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        _put(path, text.getvalue().encode())
    else:
        _put(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return path


def _put(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def records(path: Path, limit: int | None = None, **settings: Any) -> list[Record]:
    return list(read_prompts(Prompts(path=str(path), **settings), limit))


def texts(path: Path, limit: int | None = None, **settings: Any) -> list[str]:
    return [record.prompt[-1].content for record in records(path, limit, **settings)]


def complaint(path: Path, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        records(path, **settings)
    return str(caught.value).replace(f"{path.parent}/", "")


FORMATS = ["p.jsonl", "p.ndjson", "p.JSONL", "p.csv", "p.parquet", "p.jsonl.gz", "p.csv.gz"]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_records(tmp_path: Path, name: str) -> None:
    rows: Rows = [
        {"prompt": "What is 2: 3?", "category": "maths"},
        {"prompt": 'Zwei\nZeilen, "so" 🙂', "category": None},
    ]
    first, second = records(write(tmp_path / name, rows))
    assert first.prompt == (Message("user", "What is 2: 3?"),)
    assert first.id == prompt_id(first.prompt)
    assert (first.category, first.source) == ("maths", "p:1")
    assert second.prompt[0].content == 'Zwei\nZeilen, "so" 🙂'
    assert (second.category, second.source) == (None, "p:2")


@pytest.mark.parametrize("name", FORMATS)
def test_duplicates_are_dropped_and_counted_and_the_limit_counts_unique_prompts(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [{"prompt": text} for text in "abacbd"])
    reader = PromptReader([Prompts(path=str(path))])
    assert [record.source for record in reader] == [f"p:{row}" for row in (1, 2, 4, 6)]
    assert (reader.read, reader.duplicates) == (6, 2)
    assert texts(path, limit=3) == ["a", "b", "c"]
    assert texts(path, limit=0) == []
    assert texts(path, limit=99) == ["a", "b", "c", "d"]
    assert [record.id for record in reader] == [record.id for record in records(path)]
    assert (reader.read, reader.duplicates) == (6, 2)


def test_nothing_is_read_beyond_the_limit(tmp_path: Path) -> None:
    path = _put(tmp_path / "p.jsonl", b'{"prompt": "a"}\nbroken')
    assert texts(path, limit=1) == ["a"]


@pytest.mark.parametrize("name", ["p.jsonl", "p.parquet"])
@pytest.mark.parametrize("column", ["prompt", "messages", "talk"])
def test_a_prompt_may_be_a_list_of_messages(tmp_path: Path, name: str, column: str) -> None:
    path = write(tmp_path / name, [{column: TWO_TURNS}])
    (record,) = records(path, column="talk" if column == "talk" else "prompt")
    assert record.prompt == tuple(Message(**turn) for turn in TWO_TURNS)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FORMATS)
def test_the_columns_can_be_chosen_and_others_do_not_matter(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [{"id": 7, "prompt": "no", "question": "yes", "kind": 3}])
    (record,) = records(path, column="question", category_column="kind")
    assert (record.prompt[0].content, record.category) == ("yes", "3")
    (record,) = records(path, column="question", category_column=None)
    assert record.category is None


@pytest.mark.parametrize("name", FORMATS)
def test_responses_that_are_there_already_come_with_the_prompt(tmp_path: Path, name: str) -> None:
    row = {"prompt": "p", "good": "yes, \n of course", "bad": "", "by": "Writer", "by2": None}
    path = write(tmp_path / name, [row | {"id": 1}])
    (record,) = records(path, responses=("good", "bad"))
    assert record.responses == (Response("yes, \n of course", "p"), Response("", "p"))
    (record,) = records(path, responses=("bad", "good"), generators=("by", "by2"))
    assert record.responses == (Response("", "Writer"), Response("yes, \n of course", "p"))
    assert record.candidates() == [0, 1]


def test_a_response_may_be_messages_that_end_with_the_assistants(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "whole"}]
    path = write(tmp_path / "p.jsonl", [{"prompt": "p", "a": talk, "b": talk[1:], "c": talk[:1], "d": 3, "e": []}])
    (record,) = records(path, responses=("a", "b"))
    assert [response.text for response in record.responses] == ["whole", "whole"]
    assert record.candidates() == [0]  # of two that say the same, one
    assert complaint(path, responses=("a", "c")) == (
        "p.jsonl:1: 'c' ends with the turn of the user; a response is the assistant's"
    )
    assert "'d' is of type int; it must be text or a list of messages" in complaint(path, responses=("d",))
    assert "'e' is an empty list" in complaint(path, responses=("e",))
    assert "'a' is of type list; it must be the name of a model" in complaint(path, responses=("b",), generators=("a",))


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv", "p.parquet"])
def test_a_column_of_responses_that_is_not_there_is_named_with_the_others(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [{"prompt": "p", "chosen": "x", "rejected": "y"}])
    said = complaint(path, responses=("chosen", "rejectd"))
    assert "no column 'rejectd'; there are: prompt, chosen, rejected; choose" in said
    assert "--set prompts.responses=[rejected,...]" in said
    assert "--set prompts.generators=[NAME,...]" in complaint(path, responses=("chosen",), generators=("zzz",))


def test_a_generator_is_named_for_each_response_or_for_none() -> None:
    with pytest.raises(ValueError, match="`generators` names a column for each"):
        Prompts(responses=("a", "b"), generators=("a",))


def test_one_prompt_with_other_responses_is_another_record_and_with_the_same_a_duplicate(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "a": a, "b": b} for a, b in ("xy", "xz", "yx", "xy")]
    path = write(tmp_path / "p.jsonl", rows)
    reader = PromptReader([Prompts(path=str(path), responses=("a", "b"))])
    found = list(reader)
    assert (len({record.id for record in found}), reader.duplicates) == (3, 1)
    assert prompt_id(found[0].prompt) not in {record.id for record in found}
    assert len(records(path)) == 1


def test_a_system_prompt_is_put_before_prompts_without_one(tmp_path: Path) -> None:
    own = [{"role": "system", "content": "own"}, {"role": "user", "content": "b"}]
    path = write(tmp_path / "p.jsonl", [{"prompt": "a"}, {"prompt": own}])
    first, second = records(path, system="given")
    assert first.prompt == (Message("system", "given"), Message("user", "a"))
    assert first.id == prompt_id(first.prompt)
    assert second.prompt[0].content == "own"


@pytest.mark.parametrize("name", names("data"))
def test_every_bundled_prompt_set_is_read_without_duplicates(name: str) -> None:
    reader = PromptReader([Prompts(path=name)])
    found = list(reader)
    assert len(found) >= (40 if name.endswith(".zh") else 519 if name.startswith("twins") else 150)
    assert reader.duplicates == 0
    assert all(record.category for record in found)
    assert found[0].source == f"{name}:1"


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv"])
def test_a_byte_order_mark_and_windows_line_ends_are_tolerated(tmp_path: Path, name: str) -> None:
    content = '{"prompt": "a"}\r\n\r\n{"prompt": "b"}\r\n' if name == "p.jsonl" else "prompt,x\r\na,1\r\n\r\nb,2\r\n"
    path = _put(tmp_path / name, b"\xef\xbb\xbf" + content.encode())
    assert [record.source for record in records(path)] == ["p:1", "p:2"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_very_long_prompt_stays_whole(tmp_path: Path, name: str) -> None:
    text = "long, " * 100_000
    assert texts(write(tmp_path / name, [{"prompt": text}])) == [text]


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip), min_size=1, unique=True))
def test_any_text_comes_back_from_json_as_it_was(tmp_path_factory: pytest.TempPathFactory, prompts: list[str]) -> None:
    path = tmp_path_factory.mktemp("any") / "p.jsonl"
    assert texts(write(path, [{"prompt": text} for text in prompts])) == prompts


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv", "p.parquet"])
def test_a_file_is_never_whole_in_memory(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [{"prompt": f"{i} " + "x" * 2000} for i in range(5_000)])
    assert len(texts(path, limit=2)) == 2  # imports done
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_prompts(Prompts(path=str(path)))) == 5_000
        assert tracemalloc.get_traced_memory()[1] < 3e6  # of 10 MB
    finally:
        tracemalloc.stop()


def test_a_parquet_file_of_one_row_group_is_not_whole_in_memory_either(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path / "p.parquet"
    rows = pa.table({"prompt": [f"{i} " + "x" * 2000 for i in range(10_000)]})
    parquet.write_table(rows, path, compression="none", use_dictionary=False)
    del rows
    before = pa.total_allocated_bytes()
    peak = 0
    for _ in read_prompts(Prompts(path=str(path))):
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert 0 < peak < 6e6  # of 20 MB


def test_a_reader_that_is_left_early_closes_its_file(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [{"prompt": text} for text in "abc"])
    reader = read_prompts(Prompts(path=str(path)))
    assert [record.prompt[0].content for record in islice(reader, 2)] == ["a", "b"]
    del reader  # a file left open would be a ResourceWarning, which is an error here


GOOD = '{"prompt": "a"}\n'


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (GOOD + '{"prompt": "b"\n', "p.jsonl:2: not one JSON object a line: Input data was truncated"),
        ("\n\n[1]\n", "p.jsonl:3: not one JSON object a line: Expected `object`, got `array`"),
        (GOOD + '{"prompt": "\\ud83d"}\n', "p.jsonl:2: not one JSON object a line: "),
        (GOOD + '{"prompt": ' + '{"a":' * 100_000, "p.jsonl:2: not one JSON object a line: maximum recursion"),
        (GOOD + '{"promt": "b", "id": 1}\n',
         "p.jsonl:2: no column 'prompt'; there are: promt, id; choose with --set prompts.column=promt"),
        ("{}\n", "p.jsonl:1: no column 'prompt'; there are: none; choose with --set prompts.column=NAME"),
        (GOOD + '{"prompt": " \\n"}\n', "p.jsonl:2: 'prompt' is empty or has an empty message; fill it in"),
        (GOOD + '{"prompt": null}\n', "p.jsonl:2: 'prompt' is empty; it must be text or a list of messages"),
        (GOOD + '{"prompt": 3}\n', "p.jsonl:2: 'prompt' is of type int; it must be text or a list of messages"),
        ('{"prompt": []}\n', "p.jsonl:1: 'prompt' is an empty list"),
        ('{"prompt": ["a"]}\n', "p.jsonl:1: 'prompt': Expected `object`, got `str` - at `$[0]`; give a list of {role:"),
        ('{"prompt": [{"role": "human", "content": "a"}]}\n', "p.jsonl:1: 'prompt': Invalid enum value 'human'"),
        ('{"prompt": [{"role": "user", "content": [1]}]}\n', "p.jsonl:1: 'prompt': Expected `str`, got `array`"),
        ('{"prompt": [{"role": "user", "content": ""}]}\n', "p.jsonl:1: 'prompt' is empty or has an empty message"),
        ('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n',
         "p.jsonl:1: 'messages' ends with the turn of the assistant; remove what follows the user's last"),
        ('{"prompt": "a", "category": ["x"]}\n', "p.jsonl:1: 'category' is of type list, not text; choose another"),
        ("", "p.jsonl: no prompts in it"),
        ("\n \n", "p.jsonl: no prompts in it"),
        (GOOD.encode() + b'{"prompt": "caf\xe9"}\n', "p.jsonl:2: not UTF-8; save the file in that encoding"),
        (GOOD.encode("utf-16"), "p.jsonl:1: not UTF-8"),
    ],
)  # fmt: skip
def test_a_bad_json_row_is_named_with_the_way_out(tmp_path: Path, content: str | bytes, expected: str) -> None:
    path = _put(tmp_path / "p.jsonl", content if isinstance(content, bytes) else content.encode())
    assert complaint(path).startswith(expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("text;kind\na;b\n", "p.csv:2: no column 'prompt'; there are: text;kind; choose with"),
        ('prompt,kind\n"a\nb",c\nd, and e,f\n', "p.csv:4: 3 fields, but 2 columns; put a field that has commas in"),
        ('prompt,kind\na,b\n"open,c\nd,e\n', "p.csv:3: broken CSV in the row that starts here: unexpected end of data"),
        ("kind,prompt\na,b\nc\n", "p.csv:3: no column 'prompt'; there are: kind"),
        ("prompt,kind\na,b\n,c\n", "p.csv:3: 'prompt' is empty"),
        ("prompt\n", "p.csv: no prompts in it"),
        ("", "p.csv: no prompts in it"),
        (b"prompt\na\ncaf\xe9\n", "p.csv:3: not UTF-8"),
    ],
)
def test_a_bad_csv_row_is_named_with_the_way_out(tmp_path: Path, content: str | bytes, expected: str) -> None:
    path = _put(tmp_path / "p.csv", content if isinstance(content, bytes) else content.encode())
    assert complaint(path).startswith(expected)


def test_a_bad_parquet_file_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", [{"text": "a", "kind": 1}])
    assert complaint(path).startswith("p.parquet: no column 'prompt'; there are: text, kind; choose with")
    assert complaint(path, column="kind").startswith("p.parquet: row 1: 'kind' is of type int")
    path.write_bytes(path.read_bytes()[:-20])
    assert complaint(path).startswith("p.parquet: not a readable Parquet file: ")
    path.write_bytes(b"")
    assert complaint(path).startswith("p.parquet: not a readable Parquet file: ")


def test_a_compressed_file_that_is_cut_short_is_no_shorter_list_of_prompts(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl.gz", [{"prompt": str(i)} for i in range(1000)])
    path.write_bytes(path.read_bytes()[:-9])
    assert "cannot be read further" in complaint(path)
    path.write_bytes(b"not compressed")
    assert complaint(path).startswith("p.jsonl.gz:1: cannot be read further: Not a gzipped file")


def test_a_missing_file_or_an_unknown_kind_of_file_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no prompt set 'redtem'; did you mean 'redteam'\?; bundled: borderline, "):
        read_prompts(Prompts(path="redtem"))
    for name, expected in (
        ("p.json", r"'\.json' file; write them as one JSON object a line"),
        ("p.xlsx", "write them"),
    ):
        with pytest.raises(ConfigError, match=expected):
            read_prompts(Prompts(path=str(_put(tmp_path / name, b"x"))))


def test_the_fingerprint_is_of_the_bytes_and_the_columns_not_of_the_place(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", [{"prompt": "a"}])
    two = write(tmp_path / "two.jsonl", [{"prompt": "a"}])
    three = write(tmp_path / "three.jsonl", [{"prompt": "b"}])
    base = fingerprint(Prompts(path=str(one)))
    assert fingerprint(Prompts(path=str(two))) == base
    others = [
        Prompts(path=str(three)), Prompts(path=str(one), column="x"),
        Prompts(path=str(one), category_column=None), Prompts(path=str(one), system="s"),
        Prompts(path=str(one), responses=("a", "b")), Prompts(path=str(one), responses=("b", "a")),
        Prompts(path=str(one), responses=("a", "b"), generators=("x", "y")),
    ]  # fmt: skip
    assert len({base, *map(fingerprint, others)}) == 8


def test_several_sets_are_mixed_by_their_shares_whatever_the_limit(tmp_path: Path) -> None:
    red = write(tmp_path / "red.jsonl", [{"prompt": f"r{i}"} for i in range(9)])
    calm = write(tmp_path / "calm.jsonl", [{"prompt": f"c{i}"} for i in range(3)])
    sets = [Prompts(path=str(red), share=2), Prompts(path=str(calm), name="kind")]
    found = [(record.prompt_set, record.prompt[0].content) for record in PromptReader(sets)]
    assert [text for _, text in found[:6]] == ["r0", "r1", "c0", "r2", "r3", "c1"]
    assert sorted(text for _, text in found) == [f"c{i}" for i in range(3)] + [f"r{i}" for i in range(9)]
    assert {name for name, _ in found} == {"red", "kind"}
    assert [record.prompt[0].content for record in PromptReader(sets, 5)] == [text for _, text in found[:5]]


def test_a_prompt_of_two_sets_is_there_once(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", [{"prompt": "a"}])
    two = write(tmp_path / "two.jsonl", [{"prompt": "a"}, {"prompt": "b"}])
    reader = PromptReader([Prompts(path=str(one)), Prompts(path=str(two))])
    assert [record.source for record in reader] == ["one:1", "two:2"]
    assert reader.duplicates == 1


def test_a_dataset_of_another_run_gives_its_prompts(tmp_path: Path) -> None:
    (tmp_path / "set" / "preference").mkdir(parents=True)
    write(tmp_path / "set" / "preference" / "train.parquet", [{"prompt": TWO_TURNS, "category": "x"}])
    settings = Prompts(path=f"hf://{tmp_path}/set/preference")
    (record,) = PromptReader([settings])
    assert record.prompt[-1].content == TWO_TURNS[-1]["content"]
    assert record.category == "x"
    assert fingerprint(settings) != fingerprint(settings.model_copy(update={"category_column": None}))
    with pytest.raises(ConfigError, match=r"no column 'text'; there are: prompt, category; choose with --set"):
        list(PromptReader([settings.model_copy(update={"column": "text"})]))
