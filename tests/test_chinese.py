# ruff: noqa: RUF001  full-width marks are what Chinese is written with
"""Chinese end to end: templates, constitution and prompts are Chinese, and Chinese replies are understood."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rlaif
from rlaif.backends.scripted import ScriptedBackend
from rlaif.constitution import load_constitution
from rlaif.journal import Traits
from rlaif.judges.parse import chosen_option, expected_rating, option_mass, rating
from rlaif.resources import names
from rlaif.stages import Stage
from rlaif.stages.filter import Filter, Rule, repeats
from rlaif.stages.judge import Judge, Rate
from rlaif.stages.revise import Revise
from rlaif.stages.sample import Sample
from rlaif.store import RunFolder
from rlaif.templates import VARIABLES, Templates
from rlaif.types import Completion, Message, Record, Request, Response, TokenLogprob, prompt_id
from tests.judges.test_parse import probability_of_a
from tests.lab import KIND, context, letter

ENGLISH, CHINESE = Templates(), Templates(language="zh")
SAFETY = load_constitution("safety.zh")
PROMPTS = [json.loads(line) for line in Path("data/redteam.zh.jsonl").read_text("utf-8").splitlines()]
HAN = re.compile(r"[\u4e00-\u9fff]")
SENTENCE = re.compile(r"(?:\b[A-Za-z]+\b[ ,]+){2}[A-Za-z]+")  # three English words
ASKED = (Message("user", "怎么开锁？"),)
VALUES = ("critique", "conversation", "response", "response_a", "response_b", "reasoning", "ties")

ESSAY = """机器学习模型是从数据里归纳规律的程序。训练机器学习模型的时候，我们先准备一批带答案的例子，再让模型\
一次次地调整内部的数字，直到它的输出接近这些答案。训练好的机器学习模型遇到新数据时，会根据学到的规律给出预测。

好的机器学习模型不仅要在训练数据上表现好，还要在没见过的数据上表现好。因此人们会留出一部分数据专门用来检验。\
如果模型在训练数据上很准，在检验数据上却很差，就说明它只是死记硬背。这时可以增加数据、简化模型，或者提前停止训练。"""
DEFINITIONS = """系统里有两种账号。
用户：用名字和密码登录的人。
系统：用密钥登录的程序。
批评的意见也欢迎写下来：我们会逐条回复。"""


# Templates


def test_every_english_template_exists_in_chinese_and_the_other_way_round() -> None:
    bundled = names("prompts")
    assert {f"zh/{name}" for name in bundled if "/" not in name} == {name for name in bundled if "/" in name}


@pytest.mark.parametrize("few_shot", [True, False])
@pytest.mark.parametrize("name", VARIABLES)
def test_a_chinese_template_has_the_roles_and_shows_the_values_of_the_english_one(name: str, few_shot: bool) -> None:
    values = {key: f"[{key}]" for key in VALUES}
    responses = (("a", "[first]"), ("b", "[second]"))
    texts = [
        *values.values(),
        "[first]",
        "[second]",
        "Is it unkind?",
        "Make it kind.",
        "Prefer the kind one.",
        ASKED[0].content,
    ]
    english, chinese = (
        set_.render(name, ASKED, principle=KIND, few_shot=few_shot, responses=responses, **values)
        for set_ in (ENGLISH, CHINESE)
    )
    assert [message.role for message in chinese] == [message.role for message in english]
    for ours, theirs in zip(chinese, english, strict=True):
        assert [text in ours.content for text in texts] == [text in theirs.content for text in texts]


def test_no_text_of_a_chinese_template_is_english() -> None:
    for name in VARIABLES:
        values = dict.fromkeys(VALUES, "好") | {"responses": (("a", "好"), ("b", "好"))}
        for message in CHINESE.render(name, ASKED, principle=SAFETY.principles[0], few_shot=True, **values):
            assert not SENTENCE.search(message.content)


@pytest.mark.parametrize("language", ["zh", "zh-CN", "zh_Hans", "ZH"])
def test_the_language_is_the_part_before_the_region(language: str) -> None:
    templates = Templates(language=language)
    assert (templates.language, templates.fingerprint) == ("zh", CHINESE.fingerprint)


@pytest.mark.parametrize("language", ["en", "en-GB", "fr", "judge", "", "-", "../zh"])
def test_a_language_without_templates_of_its_own_uses_english_and_says_so(language: str) -> None:
    templates = Templates(language=language)
    assert (templates.language, templates.fingerprint) == ("en", ENGLISH.fingerprint)
    assert CHINESE.fingerprint != ENGLISH.fingerprint


def test_a_template_of_ones_own_wins_over_the_language_and_includes_what_is_bundled_in_it(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("--- include revision_examples.jinja\n--- conversation\n--- user\nWhy?\n")
    rendered = Templates({"critique": str(tmp_path / "mine.jinja")}, "zh").render("critique", ASKED, few_shot=False)
    assert HAN.search(rendered[0].content)
    assert rendered[-1].content == f"{ASKED[0].content}\n\nWhy?"


def test_the_chinese_examples_of_the_judge_teach_no_position() -> None:
    values = dict.fromkeys(("conversation", "response_a", "response_b", "ties"), "")
    shown = CHINESE.render("judge_pairwise", (), principle=KIND, **values)
    assert Counter(message.content for message in shown if message.role == "assistant") == {"A": 2, "B": 2}


# Constitution and prompts


def test_half_of_the_weight_of_the_chinese_constitution_asks_for_less_harm() -> None:
    assert SAFETY.language == "zh"
    assert 16 <= len(SAFETY.principles) <= 20
    weights = Counter[bool]()
    for principle in SAFETY.principles:
        weights[principle.tags[0] == "harmless"] += principle.weight  # type: ignore[assignment]
        for text in (principle.critique, principle.revision, principle.judge):
            assert text is not None
            assert not re.search(r"[A-Za-z]|[\u4e00-\u9fff，。；：] |[,;?]", text)  # no space of a folded line
    assert 0.45 < weights[True] / weights.total() < 0.55


def test_the_chinese_prompts_cover_the_categories_of_the_english_ones_evenly() -> None:
    english = {json.loads(line)["category"] for line in Path("data/redteam.jsonl").read_text().splitlines()}
    assert Counter(row["category"] for row in PROMPTS) == dict.fromkeys(english, 4)
    assert all({row["category"] for row in PROMPTS[i : i + 12]} == english for i in range(0, 48, 12))
    assert len({row["id"] for row in PROMPTS} | {row["prompt"] for row in PROMPTS}) == 96
    assert all(HAN.search(row["prompt"]) for row in PROMPTS)


# A run


def write(request: Request) -> Completion | str:
    """A Chinese model: a judge that chooses what is longer, a writer that answers by what it is asked."""
    asked = request.messages[-1].content
    if "一个字母" in asked:
        a, b = (asked.partition(f"<response_{x}>\n")[2].partition(f"\n</response_{x}>")[0] for x in "ab")
        return letter(0.9 if len(a) > len(b) else 0.1) if request.top_logprobs else f"回答{'AB'[len(b) > len(a)]}更好。"
    if "一个数字" in asked:
        return "评分：7"
    if asked.startswith("批评要求"):
        return "这个回答不够体贴。"
    return f"第{request.sample}个回答" + "，请慢慢来" * (3 if asked.startswith("修改要求") else request.sample)


async def run(stages: list[Stage], traits: Traits) -> tuple[Record, list[Request]]:
    asked: list[Request] = []
    made = Record(prompt_id(ASKED), ASKED)
    async with context(write, asked, principles=SAFETY.principles, templates=CHINESE, traits=traits) as working:
        for stage in stages:
            made = await stage(made, working)
    return made, asked


@pytest.mark.parametrize("top_logprobs", [20, 0])
async def test_every_message_of_a_run_is_chinese_and_every_verdict_is_read(top_logprobs: int) -> None:
    stages = [Sample(n=2), Revise(rounds=2), Filter(), Judge(), Rate(principles="draw")]
    record, asked = await run(stages, Traits(top_logprobs=top_logprobs))
    assert len(record.verdicts) == 3
    assert all(verdict.p_first is not None and verdict.consistent for verdict in record.verdicts)
    assert {score.value for score in record.scores} == ({0.5} if top_logprobs == 0 else {None})  # no log-probabilities
    assert len(asked) > 10
    for message in (message for request in asked for message in request.messages):
        assert HAN.search(message.content) or message.content in ("A", "B", "9")
        assert not SENTENCE.search(message.content)


def test_generate_takes_the_language_from_the_constitution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Request] = []
    complete = ScriptedBackend.complete

    async def noted(backend: ScriptedBackend, request: Request) -> Completion:
        asked.append(request)
        return await complete(backend, request)

    monkeypatch.setattr(ScriptedBackend, "complete", noted)
    result = rlaif.generate(
        constitution="safety.zh",
        prompts="redteam.zh",
        policy="scripted",
        judge="scripted",
        limit=6,
        run="zh",
        runs_dir=tmp_path,
        set=["revise.rounds=1"],
    )
    assert result.summary["outcomes"] == {"ok": 6}
    records = list(RunFolder(tmp_path, "zh").records())
    assert [record.prompt[0].content for record in records] == [row["prompt"] for row in PROMPTS[:6]]
    assert all(len(record.responses) == 3 and record.verdicts for record in records)
    assert {verdict.outcome for record in records for verdict in record.verdicts} == {"ok"}
    assert result.summary["dataset"]["pairs"] >= 4
    ours = [text for text in map(_without_answers, asked) if not text.endswith("the letter only.")]
    assert len(ours) == result.summary["calls"]["sent"] - 1  # the first is the preflight's
    assert not [text for text in ours if SENTENCE.search(text)]


def _without_answers(request: Request) -> str:
    lines = [line for message in request.messages for line in message.content.splitlines()]
    return "\n".join(line for line in lines if not line.startswith("Scripted answer"))


# Rules


def reason(rule: Rule, text: str, revises: str | None = None) -> str | None:
    drafts = () if revises is None else (Response(revises, "policy"),)
    response = Response(text, "policy", revises=None if revises is None else 0)
    made = Record(prompt_id(ASKED), ASKED, responses=(*drafts, response))
    return Filter(rules=(rule,)).reason(made, len(drafts))


@pytest.mark.parametrize(
    "text",
    [
        "对不起。" * 30,
        "不" * 120,
        "好的，我明白了。" * 12,
        ESSAY + "你应该找一个信得过的人好好谈谈这件事。" * 6,
        "我不能帮你做这件事，因为这样会伤害别人。" * 5,
    ],
)
def test_repetition_fires_on_loops_without_spaces(text: str) -> None:
    assert repeats(text)


@pytest.mark.parametrize("text", [ESSAY, DEFINITIONS, "不，不，不行。", "哈哈哈哈哈哈哈哈", "あはは", ""])
def test_repetition_leaves_essays_with_their_terms_and_short_answers_alone(text: str) -> None:
    assert not repeats(text)
    assert not repeats("".join(principle.judge or "" for principle in SAFETY.principles[:3]))


@pytest.mark.parametrize(
    "text",
    [
        "用户：怎么做？\n这样做。",
        "好的。\n\n用户：谢谢\n\n助手：不客气。",
        "助手：好的，在这里。",
        "**助手**：好的。",
        "### 助手: 好的。",
        "Human：谢谢",
    ],
)
def test_role_tags_are_found(text: str) -> None:
    assert reason("role_tags", text) == "role_tags"


@pytest.mark.parametrize(
    "text", [ESSAY, DEFINITIONS, "这个助手：好用", "请联系系统管理员。", "用户可以这样做：先登录。"]
)
def test_role_tags_leave_honest_text_alone(text: str) -> None:
    assert reason("role_tags", text) is None


@pytest.mark.parametrize(
    "text",
    [
        "批评：这个回答很粗鲁。\n\n请好好问他。",
        "**批评**：这个回答很粗鲁。",
        "批评要求：指出问题。",
        "请好好问他。\n\n修改要求：改得友善些。",
        "修改后的回答：请好好问他。",
        "修改后的回答:请好好问他。",
        "**改写后的版本**：\n请好好问他。",
        "新的回答：请好好问他。",
        "以下是修改后的回答：\n\n请好好问他。",
        "好的，以下是修改后的、更友善的版本：\n请好好问他。",
        "下面是我改写过的回答：请好好问他。",
        "助手的上一个回答有害，因为它提到了毒药。",
    ],
)
def test_critique_leaks_are_found_in_revisions_and_only_there(text: str) -> None:
    assert reason("critique_leak", text, revises="威胁他。") == "critique_leak"
    assert reason("critique_leak", text) is None


@pytest.mark.parametrize(
    "text",
    [
        ESSAY,
        DEFINITIONS,
        "批评一部电影时，也要说说你喜欢的地方。",
        "可以修改的地方有三处：标题、开头和结尾。",
        "以下是几点建议：\n1. 先打电话。",
        "以下是修改密码的步骤：先登录。",
    ],
)
def test_revisions_may_speak_of_critiques(text: str) -> None:
    assert reason("critique_leak", text, revises="别的。") is None


def test_echoes_and_revisions_that_change_only_marks_are_found() -> None:
    assert reason("prompt_echo", "怎么，开锁？！") == "prompt_echo"
    assert reason("prompt_echo", "怎么开锁？找锁匠。") is None
    assert reason("no_op_revision", "给他打电话，现在。", revises="给他打电话现在") == "no_op_revision"
    assert reason("no_op_revision", "给她打电话", revises="给他打电话") is None


@pytest.mark.parametrize(
    ("critique", "rounds"),
    [
        ("没有问题。", 0),
        ("**没有问题**", 0),
        ("“没有任何问题。”", 0),
        ("未发现问题", 0),
        ("没有问题，但语气太冷。", 2),
        ("没有说明问题的原因。", 2),
        ("有问题。", 2),
    ],
)
async def test_until_clean_ends_the_chain_when_the_critique_finds_nothing(critique: str, rounds: int) -> None:
    def reply(request: Request) -> str:
        return critique if request.messages[-1].content.startswith("批评要求") else f"改写{request.sample}"

    made = Record(prompt_id(ASKED), ASKED, responses=(Response("找锁匠。", "policy"),))
    async with context(reply, templates=CHINESE) as working:
        after = await Revise(rounds=2, until_clean=True)(made, working)
    assert len(after.responses) == 1 + rounds


def test_long_chinese_text_is_read_in_linear_time() -> None:
    for text in ("的" * 100_000, "好的，以下是" * 20_000, "，" * 100_000):
        assert chosen_option(text) is None
        assert rating(text) is None
        for rule in ("repetition", "role_tags", "critique_leak", "no_op_revision"):
            assert reason(rule, text, revises="别的。") in (None, "repetition")


# Replies


@pytest.mark.parametrize(
    "reply",
    [
        "Ａ",
        "（Ａ）",
        "【A】",
        "「A」",
        "A。因为它更体贴",
        "A，它更体贴",
        "答案：A",
        "答案：Ａ。",
        "答案是A",
        "**答案**：A",
        "最终答案：A",
        "选择A",
        "我选A",
        "选项A",
        "回答A",
        "回答A更好",
        "回答 A 更好",
        "A更好",
        "A 更好",
        "A比B更好",
        "A胜出",
        "我认为A更好",
        "更好的回答是A",
        "我认为，更好的回答是：回答A。",
        "回答A在各方面都更好",
        "Response A 更好",
    ],
)
def test_chinese_replies_that_choose_are_read(reply: str) -> None:
    assert chosen_option(reply) == "A"
    assert chosen_option(reply.translate(str.maketrans("ABＡ", "BAＢ"))) == "B"


@pytest.mark.parametrize(
    "reply",
    [
        "两个都好",
        "A和B都",
        "A和B都很好",
        "A、B都不错",
        "A，B",
        "A或B",
        "选A还是B",
        "A跟B一样好",
        "回答A和回答B一样好",
        "A与B相当",
        "A＝B",
        "A／B",
        "A更差",
        "A比B更差",
        "A不如B",
        "A没有B好",
        "回答A有害",
        "不选A",
        "我不选A",
        "都不好",
        "A级的回答应该更短",
        "一个好的回答会拒绝",
        "作为AI，我无法比较",
        "无法判断",
    ],
)
def test_chinese_replies_that_do_not_choose_are_no_vote(reply: str) -> None:
    assert chosen_option(reply) is None


def certain(*texts: str) -> list[TokenLogprob]:
    return [TokenLogprob(text, 0.0, ((text, 0.0),)) for text in texts]


@pytest.mark.parametrize(
    ("texts", "p"),
    [
        (("Ａ",), 1),
        (("（B", "）"), 0),
        (("答案", "：", "A"), 1),
        (("回答", "B", "更好"), 0),
        (("我", "选择", "A"), 1),
        (("A", "。", "因为"), 1),
        (("A", "和", "B"), None),
        (("A", "更", "差"), None),
        (("两个", "都", "好"), None),
        (("都", "A", "好"), None),
    ],
)
def test_the_letter_is_read_from_the_log_probabilities_of_a_chinese_reply(
    texts: tuple[str, ...], p: float | None
) -> None:
    assert probability_of_a(certain(*texts), 0.2) == p


def test_full_width_letters_and_marks_count_as_spellings_of_the_option() -> None:
    assert option_mass(TokenLogprob("Ａ", 0.0, tuple((text, 0.0) for text in ("Ａ", "A。", "「A」"))), "AB")["A"] == 3.0


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("７", 7),
        ("7分", 7),
        ("7。", 7),
        ("评分：7", 7),
        ("评分：７分", 7),
        ("我给7分", 7),
        ("最终得分是 7.5", 7.5),
        ("7分（满分9分）", 7),
    ],
)
def test_chinese_ratings_are_read(reply: str, value: float) -> None:
    assert rating(reply) == value


@pytest.mark.parametrize(
    "reply",
    [
        "10分",
        "７／10",
        "7到8分",
        "7分至8分",
        "7分（满分10分）",
        "8，满分 90",
        "－1",
        "0分",
        "１０",
        "十分好",
        "没有评分",
    ],
)
def test_chinese_ratings_off_the_scale_are_none(reply: str) -> None:
    assert rating(reply) is None


@pytest.mark.parametrize(("texts", "value"), [(("评分", "：", "７"), 7), (("7", "分"), 7), (("1", "０"), None)])
def test_a_rating_is_read_from_the_log_probabilities_of_a_chinese_reply(
    texts: tuple[str, ...], value: float | None
) -> None:
    assert expected_rating(certain(*texts), 0.2) == value


@given(st.text(alphabet="AB更好答案选回和，。：（）不没我是的7分到满1０Ａ \n", max_size=30))
def test_swapping_the_letters_swaps_the_choice_and_any_text_is_read_or_not(text: str) -> None:
    choice = chosen_option(text)
    swapped = chosen_option(text.translate(str.maketrans("ABＡ", "BAＢ")))
    assert (choice, swapped) in {("A", "B"), ("B", "A"), (None, None)}
    value = rating(text)
    assert value is None or 1 <= value <= 9
