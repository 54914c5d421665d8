"""What the words of a principle tell, in English and Chinese: whether it compares, looks, forbids, and for what aim."""

# ruff: noqa: RUF001  full-width marks are what Chinese is written with

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Aim = Literal["harmless", "helpful", "honest", "unpreachy"]
AIMS: tuple[Aim, ...] = ("harmless", "helpful", "honest", "unpreachy")

# Scripts without spaces between words: there a character is a token.
_SPACELESS = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_SPACELESS}]|(?:(?![{_SPACELESS}])[^\W_])+(?:['’-](?:(?![{_SPACELESS}])[^\W_])+)*")
_SPACELESS_CHARACTER = re.compile(rf"[{_SPACELESS}]")


@dataclass(frozen=True, slots=True)
class Words:
    """The patterns of one language. All are searched in case-folded text."""

    frame: re.Pattern[str]  # the words that every principle has: prefer, response, rewrite, the, that
    evaluative: re.Pattern[str]  # praise and blame that nobody can look up in a text
    compares: re.Pattern[str]
    looks: tuple[re.Pattern[str], ...]  # all must be there: what is looked at, and the request to look
    rewrites: re.Pattern[str]
    forbids: re.Pattern[str]
    instructs: re.Pattern[str]  # in a clause that does not forbid
    clause: re.Pattern[str]  # what parts two clauses
    less: re.Pattern[str]  # turns a principle round
    aims: dict[Aim, re.Pattern[str]]


def words_of(language: str) -> Words | None:
    """None for a language whose words are not known here; "zh-CN" and "zh_Hans" are "zh"."""
    return _WORDS.get(re.split("[-_]", language.casefold())[0])


def tokens(text: str) -> list[str]:
    """Case-folded words; of Chinese, Japanese and Thai the single characters."""
    return _TOKEN.findall(text.casefold())


def content(text: str, words: Words | None) -> list[str]:
    """The tokens that are not in every principle."""
    return tokens(text if words is None else words.frame.sub(" ", text.casefold()))


def shingles(text: str, words: Words | None) -> frozenset[str]:
    """What is compared of two texts: their words; of scripts without spaces each two characters in a row.

    In a language whose frame is not known, pairs of words too: else the frame alone would make texts alike.
    """
    kept = content(text, words)
    pairs = [f"{a} {b}" for a, b in pairwise(kept)]
    single = [token for token in kept if not _SPACELESS_CHARACTER.match(token)]
    return frozenset(single + [p for p in pairs if words is None or _SPACELESS_CHARACTER.match(p)] or kept)


def alike(a: frozenset[str], b: frozenset[str]) -> float:
    """Jaccard: the share of both that both have."""
    return len(a & b) / len(a | b) if a or b else 0.0


def only_praises(text: str, words: Words) -> bool:
    """It has words like "good", and without them nothing but the frame; of Chinese up to one character."""
    rest, praised = words.evaluative.subn(" ", text.casefold())
    left = content(rest, words)
    return praised > 0 and len(left) <= (1 if left and _SPACELESS_CHARACTER.match(left[0]) else 0)


def only_forbids(text: str, words: Words) -> bool:
    """It says what should not be there, and no clause says what should."""
    folded = text.casefold()
    if not words.forbids.search(folded):
        return False
    return not any(_instructs(clause, words) for clause in words.clause.split(folded))


def script(text: str) -> str:
    """What most letters are of, as Unicode names it: LATIN, CJK, CYRILLIC; "" without letters."""
    counts = Counter(unicodedata.name(c, "").partition(" ")[0] for c in text if c.isalpha())
    if counts["HIRAGANA"] + counts["KATAKANA"] > len(text) / 10:  # Japanese has both, and Chinese characters
        return "HIRAGANA"
    return counts.most_common(1)[0][0] if counts else ""


def script_of(language: str) -> str | None:
    """The script a language is written in, where there is one that nobody doubts."""
    return _SCRIPTS.get(re.split("[-_]", language.casefold())[0])


def reads_as_english(text: str) -> bool:
    """Of 8 words or more, at least one in ten is one of the commonest. Shorter texts always."""
    found = tokens(text)
    return len(found) < 8 or sum(token in _COMMONEST for token in found) * 10 >= len(found)


def language_of(texts: Sequence[str]) -> str | None:
    """The language of a list of principles, of those that can be told here."""
    whole = " ".join(texts)
    kind = script(whole)
    if kind == "LATIN":
        return "en" if reads_as_english(whole) else None
    return {"CJK": "zh", "HIRAGANA": "ja", "HANGUL": "ko", "THAI": "th", "HEBREW": "he", "GREEK": "el"}.get(kind)


def _instructs(clause: str, words: Words) -> bool:
    """Says what to do before it forbids, if it does: "gives help without a lecture", not "gives no help"."""
    found = words.instructs.search(clause)
    forbidden = words.forbids.search(clause)
    if found is None or forbidden is None:
        return found is not None
    return found.end() + 1 < forbidden.start()


def _any(words: str) -> re.Pattern[str]:
    r"""One of these whole words; `*` at the end of a word stands for any ending, `~` for the space within."""
    longest_first = sorted(words.split(), key=len, reverse=True)  # "it's" before "it"
    parts = "|".join(re.sub(r"\*", r"[\\w-]*", word) for word in longest_first)
    return re.compile(rf"(?<![\w-])(?:{parts})(?![\w-])".replace("~", r"\s+"))


_ENGLISH = Words(
    frame=_any(
        "a an the this that these those that's it it's its one ones they them their he she his her you your "
        "i is are was were be been being am do does did doing done has have had may might could can will would "
        "should must than then as of to in on at by for from with within about into and or but if so such "
        "whether which what who whom whose where when how there here both either neither any anything all some "
        "something each every other another others also too very really please not "
        "prefer* choose choosing pick select favor* favour* compare comparing consider* response* answer answers "
        "reply replies output outputs assistant assistant's ai model human human's humans user user's users person "
        "preceding previous last above new version content "
        "rewrite* revise revises revised revision amend edit write written make makes making sure remove removes "
        "refrain* avoid* identify identifies point out discuss explain describe comment note list find give gives "
        "giving critique criticize criticise look read think carefully ways way specific details improved improve "
        "strongest argument said say says saying exhibit* behavio* display* show shows sound sounds "
        "based criteria possible overall like including include especially potentially deliberately trying more most "
        "less least higher lower as~possible"
    ),
    evaluative=_any(
        "good better best bad worse worst well great excellent fine nice ideal perfect "
        "appropriate* inappropriate* suitable unsuitable proper* improper* acceptable unacceptable desirable "
        "undesirable reasonable problematic objectionable controvers* quality high-quality low-quality valuable "
        "helpful* unhelpful* harmless* harmful* harm harms honest honesty ethical* unethical* moral* immoral* "
        "ethics right wrong positive* negative* safe safely safety unsafe useful responsible irresponsible "
        "socially commonsense common~sense standards standard principles values"
    ),
    compares=_any(
        "prefer* choose pick select favor* favour* which better best worse worst more most less least fewer fewest "
        "rank compare rather higher lower [a-z]+er~than"
    ),
    looks=(
        _any(
            "response* answer answers reply replies output outputs message assistant assistant's text draft it "
            "sentence* statement* claim* wording refusal* words what~was~said"
        ),
        re.compile(
            r"\?|^\W*(?:is|are|was|were|do|does|did|has|have|can|could|would)\b"
            r"|\b(?:point|identify|find|list|name|quote|check|look|discuss|explain|describe|criti\w+|comment|note|say|"
            r"state|show|mark|decide|imagine|think|set aside|search|judge|assess|evaluat\w+|review|consider|examin\w+|"
            r"highlight|flag|tell|read|analy\w+|determine|count|what|where|how|whether)\b"
        ),
    ),
    rewrites=_any(
        "rewrite rewriting re-write revise revision amend edit change remove replace write make improve correct fix "
        "add cut drop turn adapt rephrase shorten lengthen modify adjust create produce give respond answer keep "
        "refuse decline redo update delete convert provide draft restate soften simplify translate"
    ),
    forbids=re.compile(
        r"n['’]t\b|\b(?:not|no|never|nobody|none|nothing|neither|nor|without|avoid\w*|remov\w+|refrain\w*|eliminat\w+|"
        r"omit\w*|delet\w+|exclud\w+|drop|drops|cut|cuts|leav\w+ out|withhold\w*|free (?:of|from)|less|least|fewer|"
        r"fewest|reduc\w+|minimi[sz]\w+|stop\w*|lack\w*|absence|rid|prevent\w*|prohibit\w*|forbid\w*)\b"
    ),
    instructs=_any(
        "keep* give gives say says tell tells help helps helpful* offer* explain* state states stated point points "
        "suggest* describe* name names add adds use uses treat* show shows mark marks mention* move moves address* "
        "respond* provide* include* discuss* sound* persuade* speak* notice* admit* correct* restate* express* "
        "acknowledge* respect* reflect* focus* ensure* support* call calls answers answered more most better best "
        "clear* complete* accurate* true truth* honest* specific* kind kindly polite* friendly warm* plain* useful* "
        "concrete* brief* short concise* firm open like instead follow* fulfil* meet meets serve* teach* quote* cite* "
        "ask asks repla* begin* start* end ends gentle* calm* empath* fair* safe safer "
        "wise* peaceful* ethical* thoughtful* caring respectful* cordial*"
    ),
    clause=re.compile(
        r"[.;:!?]|,? \b(?:and|but|while|yet|then|rather than)\b|, (?=(?:so|which|who|prefer|choose|pick|select)\b)"
    ),
    less=_any("not no never less least fewer fewest without lacks avoid* instead~of rather~than"),
    aims={
        "harmless": _any(
            "harm(?!less~(?:bit|one|part|people|prompt|question|request|thing|topic))* danger* toxic* illegal* "
            "unlawful crim* violen* weapon* racis* sexis* hate hateful abus* unsafe "
            "safe safer safety offens* discriminat* insult* stereotyp* suicide self-harm ethical* unethical* hurt* "
            "injur* bully* threat* malware misogyn* bias* prejudice* inappropriate age-appropriate"
        ),
        "helpful": _any(
            "helpful* useful* usable actionable helps~the~user helps~the~person instruction* "
            "answers~the~(?:question|request|user|human|prompt) (?:what|everything)~the~(?:user|prompt)~ask* "
            "complete completely relevant on-topic concrete"
        ),
        "honest": _any(
            "honest* truth* true false falsehood* fact facts factual* accura* inaccura* invent* made-up fabricat* "
            "hallucinat* mislead* misinform* decei* decept* uncertain* unsure confidence overconfident calibrat*"
        ),
        "unpreachy": re.compile(
            r"\b(?:preach|lectur|morali[sz]|sanctimon|condescend|self-righteous|judge?mental|patroni[sz]|over-?cautious|"
            r"overly[- ](?:reactive|cautious|careful)|boilerplate|disclaimer|evasive|accusator|suspicio)"
            r"|\b(?:no|not|n't|without|never|needless\w*|unneed\w*|unnecessar\w*|unasked|avoid\w*|rather than|over|"
            r"wrong\w*|less|fewer|remove|cut|drop|excessive\w*|instead of)\W+(?:\w+\W+){0,3}?"
            r"(?:refus|warning|apolog|moral remark|evas)"
            r"|\b(?:where|when|if|that|it|response) (?:needlessly |wrongly )?(?:refuses|over-?refuses)\b"
        ),
    },
)


_CHINESE = Words(
    frame=re.compile(
        "选择|选出|选|哪一个|哪个|那个|这个|上一个|一个|两个|回答|回复|答复|助手|用户|提问者|请|改写|修改|重写|改进|"
        "指出|找出|列出|说明|讨论|判断|是否|任何|所有|一切|内容|地方|更加|更|最|较|比较|的|地|得|了|是|在|里|中|让|使|"
        "它|他|她|和|与|且|并|又|既|也|就|都|把|对|从|去掉|删去|删除|避免|没有|不|有|哪里|哪些|如何|怎样|[，。；：、？！,.]"
    ),
    evaluative=re.compile(
        "高质量|质量|有帮助|有用|有益|有害|无害|伤害|危害|诚实|合适|恰当|适当|不当|优秀|良好|完美|合理|道德|伦理|"
        "安全|正面|负面|积极|负责|正确|错误|问题|好|坏|差"
    ),
    compares=re.compile("选|哪个|哪一|更|最|较|优先|比.*?好|好过|不如"),
    looks=(
        re.compile("回答|回复|答复|内容|输出|原话|句|话|文字"),
        re.compile("找|指出|列|看|说|判断|检查|想|引|标|分析|评|考虑|有没有|是否|哪|吗|？"),
    ),
    rewrites=re.compile("改|重写|写|删|去掉|换|补|加|修|回答|回应|谢绝|保留"),
    forbids=re.compile("不|没|无|别|勿|去掉|删|避免|禁止|拒绝|更少|减少"),
    instructs=re.compile(
        "保留|给|提供|说明|改成|换|用|指出|回答|帮|讲|解答|告诉|建议|补|写|直说|照常|照样|回应|更|尊重|如实|承认|讨论|"
        "纠正|温和|友善|具体"
    ),
    clause=re.compile("[，。；：！？,.;]|而是|但"),
    less=re.compile("不|没|无|更少|最少|避免"),
    aims={
        "harmless": re.compile("害|危险|伤|毒|武器|犯罪|违法|暴力|歧视|侮辱|辱骂|羞辱|安全|诈骗|自杀|轻生|隐私"),
        "helpful": re.compile("有用|帮助|有帮助|解答|完整|具体|满足"),
        "honest": re.compile("诚实|真实|事实|真话|谣言|编造|不实|准确|推测|把握|拿不准|谎|误导"),
        "unpreachy": re.compile(
            "说教|教训|套话|居高临下|猜疑|(?:无谓|不必|不该|过度|没必要|一口回绝|光秃秃).{0,6}(?:拒绝|警告|办法)"
        ),
    },
)
_WORDS = {"en": _ENGLISH, "zh": _CHINESE}

_SCRIPTS = {
    language: name
    for name, languages in {
        "LATIN": "en de fr es it pt nl sv da no nb nn fi pl cs sk hu ro tr vi id ms sw",
        "CYRILLIC": "ru uk bg be mk",
        "ARABIC": "ar fa ur",
        "CJK": "zh",
        "HIRAGANA": "ja",
        "HANGUL": "ko",
        "GREEK": "el",
        "HEBREW": "he",
        "DEVANAGARI": "hi",
        "THAI": "th",
    }.items()
    for language in languages.split()
}
_COMMONEST = frozenset(
    tokens("the of to and a in that it is or for not be with on as this which any are response by if so what where")
)
