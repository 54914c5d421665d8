"""Traces in a text of how it was made: chat markup, a critique, a preamble, the name of the model that wrote it."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from rlaif.hygiene.words import words

Leak = Literal["role_tags", "critique_leak", "preamble", "self_identification"]


def leak(text: str, prompt: str = "") -> Leak | None:
    """What leaked into a response, if anything. Made for text of unknown origin: it would rather miss than accuse.

    A `prompt` that asks for a revision or a critique, as an editor's does, excuses what looks like a trace of one.
    """
    signs = _signs(text)
    if "role" in signs and _ROLE_TAG.search(text):
        return "role_tags"
    if "revision" in signs and (trace := _trace(text)) and not _ASKS_FOR_IT.search(prompt):
        return trace
    return "self_identification" if "name" in signs and _says_who(text) else None


def role_tags(text: str) -> bool:
    """Whether a turn of a conversation, or chat markup, stands in the text."""
    return _ROLE_TAG.search(text) is not None


def critique_leak(revision: str) -> bool:
    """Whether a text that is known to be a revision speaks of being one."""
    return _REVISION_LEAK.search(revision) is not None


def self_identification(text: str) -> bool:
    """Whether the writer says in the first person which model it is, or which company made it."""
    return "name" in _signs(text) and _says_who(text)


def _trace(text: str) -> Literal["critique_leak", "preamble"] | None:
    if _PREAMBLE.match(text):
        return "preamble"
    return "critique_leak" if _CRITIQUE.search(text) else None


def _says_who(text: str) -> bool:
    return any(pattern.search(text) for pattern in _SELF)


def _signs(text: str) -> set[str]:
    """Of which leaks it has a word that each of them has. Most texts have none; the search takes ten times as long."""
    latin = (text if text.isascii() else text.encode("ascii", "replace").decode()).lower()
    said = set(words(latin))
    return {
        kind
        for kind, signs in _SIGNS.items()
        if not signs.words.isdisjoint(said)
        or any(map(latin.__contains__, signs.parts))
        or (not text.isascii() and any(map(text.__contains__, signs.chinese)))
    }


# Chat markup, unless it is quoted as code; <s> is also HTML, so only at the ends. "User:" and "System:" stand
# at the start of many an honest line, so they count at the start of the text, "Human:" and "Assistant:" anywhere.
# The same holds in Chinese.
_ROLE_TAG = re.compile(
    r"(?<![`\"'])(?:<\|\w+\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>)|\A\s*<s>|</s>\s*\Z"
    r"|\A[^\w\n]*(?:user|system|用户|系统)\W{0,3}[:\uff1a]|^[^\w\n]*(?:human|assistant|人类|助手)\W{0,3}[:\uff1a]",
    re.IGNORECASE | re.MULTILINE,
)
_REVISED_ZH = "(?:修改|修订|改写|重写|改进|优化|更新)(?:过|之?后|版)"
_REVISION_LEAK = re.compile(
    r"^[^\w\n]*(?:(?:critique|revision)(?: request)?"
    r"|(?:revised|rewritten|improved|new|updated) (?:answer|response|version)"
    r"|here(?:['\u2019]s| is) (?:the|a|an|my) (?:revised|rewritten|improved|new|updated)\b[^\n:]*"
    r"|批评(?:要求|意见)?|修改要求"
    rf"|(?:{_REVISED_ZH}|新)的?(?:回答|回复|答复|答案|版本)"
    rf"|(?:好的?\W{{0,2}})?(?:以下|下面|这)是(?:我)?{_REVISED_ZH}[^\n:\uff1a]*)\W{{0,3}}[:\uff1a]"
    r"|\bthe assistant['\u2019]s (?:last|previous) (?:answer|response)\b"
    r"|助手的?(?:上一个|上一次的?|上次的?|最后一个|最后一次的?)(?:回答|回复)",
    re.IGNORECASE | re.MULTILINE,
)

# --- text of unknown origin: a heading "Critique:" in an essay is honest, so the same words need more around them ---

_REVISED = r"(?:revised|rewritten|re-written|improved|reworded|rephrased|refined|corrected|edited|updated|modified)"
_ANSWER = r"(?:answer|response|reply|version(?: of (?:the|my|your|that|this) (?:\w+ )?(?:answer|response|reply))?)"
_CRITIQUE = re.compile(
    r"\A[^\w\n]*(?:critique|revision)\W{0,3}[:\uff1a]|^[^\w\n]*(?:critique|revision) request\W{0,3}:"
    r"|\bthe assistant['\u2019]s (?:last|previous) (?:answer|response)\b"
    rf"|\b(?:this|my) {_REVISED} (?:answer|response|reply)\b"
    r"|\A[^\w\n]*(?:批评(?:要求|意见)|修改要求)\W{0,3}[:\uff1a]"
    r"|助手的?(?:上一个|上一次的?|上次的?|最后一个|最后一次的?)(?:回答|回复)",
    re.IGNORECASE | re.MULTILINE,
)
_POLITE = (
    r"(?:sure|certainly|of course|absolutely|okay|ok|no problem|understood|thank you|my apologies|i apologi[sz]e"
    r"|(?:i['\u2019]m|i am) (?:sorry|happy))\b[^\n:]{0,120}?[,.!]\s*"
)
_HERE_IS = r"(?:here(?:['\u2019]s| is)|this is|below is) (?:the|a|an|my|your) (?:\w+,? ){0,3}?"
_PREAMBLE = re.compile(
    rf"[^\w\n]*(?:(?:{_POLITE})?(?:{_HERE_IS}{_REVISED} {_ANSWER}\b[^\n:]{{0,120}}"
    rf"|(?:my |the )?{_REVISED} {_ANSWER}\W{{0,3}}):"
    r"|(?:(?:好的?|当然)\W{0,2})?(?:(?:以下|下面|这)是)?(?:我的?)?"
    rf"{_REVISED_ZH}的?(?:回答|回复|答复|答案)[^\n:\uff1a]{{0,20}}[:\uff1a])",
    re.IGNORECASE,
)
_ASKS_FOR_IT = re.compile(
    r"\b(?:critiq|revis|rewrit|re-writ|rewrote|reword|rephras|paraphras|improv|edit|proofread|correct|refin|updat"
    r"|modif|polish|shorten|version)|修改|修订|改写|重写|改进|优化|润色|批评",
    re.IGNORECASE,
)

# --- who wrote it ---

# Companies that make nothing but models, and those that a person may have been trained by, too.
_LAB = (
    r"(?:Open ?AI|Anthropic|(?:Google )?DeepMind|Google AI|Meta AI|Mistral(?: AI)?|DeepSeek|xAI|Cohere|Zhipu(?: AI)?"
    r"|Moonshot(?: AI)?|LMSYS|Large Model Systems|Stability AI|EleutherAI|LAION|Hugging ?Face|Nous Research|AI21"
    r"|Inflection|01\.AI|Allen Institute for AI|Technology Innovation Institute|Alibaba Cloud"
    r"|深度求索|智谱|月之暗面|阿里云|通义)"
)
_COMPANY = (
    rf"(?:{_LAB}|Google|Microsoft|Meta|Alibaba|Baidu|Tencent|ByteDance|IBM|NVIDIA|Amazon|Huawei|iFlytek|Databricks"
    r"|阿里巴巴|百度|腾讯|字节跳动|华为|科大讯飞|谷歌|微软)"
)
# Names that only models have, and those that people, animals or star signs have, too.
_MODEL = (
    r"(?:Chat ?GPT|GPT-?[345](?:\.\d|o)?|Qwen\w*|DeepSeek|ChatGLM\w*|Vicuna|Open ?Assistant|Baichuan\w*|InternLM"
    r"|通义千问|千问|文心一言|智谱清言|豆包|讯飞星火|腾讯混元|深度求索)"
)
_NAME = r"(?:Claude|Gemini|Bard|L[Ll]a[Mm][Aa]|Mistral|Mixtral|Copilot|Grok|Kimi|Ernie(?: Bot)?|Bing|Alpaca|Phi|Gemma)"
_MACHINE = r"(?:\bAI\b|A\.I\.|artificial intelligence|\b(?:language |chat ?)model|\bLLM|chat ?bot|virtual assistant)"
_MADE = r"(?:developed|created|made|built|designed|programmed|trained)"
_BY = rf"(?:{_MADE}(?:,? (?:and|&) {_MADE})? by|from) (?:(?:the |a )?(?:team|company|people|researchers)(?: at| of)? )?"
_REST = r"[^.!?\n]{0,60}?"  # of the sentence
# "I" that nobody is quoted with, nor asked if.
_ME = r"I(?<![\"'`\u201c\u2018\u300c\w]I)(?<!\b[Ii]f I)(?<!\bthat I)(?:['\u2019]m| am| was| have been)"
_MY_NAME = r"y name is(?<=\b[Mm]y name is)(?<![\"'`\u201c]My name is)(?<![\"'`\u201c]my name is)"
_MADE_ZH = "(?:开发|训练|研发|创建|推出|打造|创造|设计|研制)"
_ME_ZH = r"(?<![\"'\u201c\u300c\u300e\u2018说])我"
_SELF = tuple(
    map(
        re.compile,
        (
            # I am ChatGPT; my name is Claude, and I am an AI made by Anthropic
            rf"(?:{_ME}|{_MY_NAME})(?: actually| called| known as| named| just)? "
            rf"(?:{_MODEL}(?!\w)|{_NAME}\b{_REST}(?:{_MACHINE}|\b{_BY}{_COMPANY}(?!\w)))",
            # I am a large language model trained by OpenAI
            rf"{_ME}(?: just| only)? an? {_REST}{_MACHINE}{_REST}\b{_BY}{_COMPANY}(?!\w)",
            # I was trained by Anthropic
            rf"{_ME}(?: \w+ly)? (?:{_MADE}(?:,? (?:and|&) {_MADE})? by {_LAB}(?!\w)"
            rf"|(?:developed|created|built|programmed) by {_COMPANY}(?!\w))",
            # As an AI developed by OpenAI, I
            rf"s (?<=\b[Aa]s )(?:an? |the ){_REST}{_MACHINE}{_REST}\b{_BY}{_COMPANY}(?!\w){_REST}\b(?:I|my)\b",
            rf"s (?<=\b[Aa]s )(?:{_MODEL}|{_NAME}), {_REST}\bI\b",
            rf"y (?<=\b[Mm]y )(?:creators?|developers?|makers?)(?: at| is| are|,) {_COMPANY}(?!\w)",
            rf"\b{_COMPANY}, (?:the company (?:that|which|who)|who) {_MADE} me\b",
            # 我是通义千问; 我是由OpenAI训练的; 作为OpenAI开发的人工智能
            rf"{_ME_ZH}(?:是|叫)\s?(?:{_MODEL}|{_NAME}(?=\W|\Z|一个|一款|由))",
            rf"{_ME_ZH}是(?:一个|一款|一种)?由?\s?{_COMPANY}[^。\uff01\uff1f\n]{{0,12}}{_MADE_ZH}",
            rf"作为(?:一个|一款|一种)?由?\s?{_COMPANY}[^。\uff01\uff1f\n]{{0,8}}{_MADE_ZH}的",
        ),
    )
)

# --- words of which each leak has one ---


class _Signs(NamedTuple):
    words: frozenset[str]
    parts: tuple[str, ...]  # of words, or of several
    chinese: tuple[str, ...]


_SIGNS = {
    "role": _Signs(
        frozenset({"human", "assistant", "user", "system"}),
        ("<|", "inst]", "sys>>", "_of_turn>", "<s>", "</s>"),
        ("用户", "系统", "人类", "助手"),
    ),
    "revision": _Signs(
        frozenset(
            {
                *("critique", "revision", "assistant", "revised", "rewritten", "written", "improved", "reworded"),
                *("rephrased", "refined", "corrected", "edited", "updated", "modified"),
            }
        ),
        (),
        ("批评", "助手", "修改", "修订", "改写", "重写", "改进", "优化", "更新"),
    ),
    "name": _Signs(
        frozenset(
            {
                *(
                    "openai",
                    "openassistant",
                    "anthropic",
                    "deepmind",
                    "google",
                    "meta",
                    "mistral",
                    "mixtral",
                    "deepseek",
                ),
                *("xai", "cohere", "zhipu", "moonshot", "lmsys", "stability", "eleutherai", "laion", "hugging", "nous"),
                *("huggingface", "ai21", "inflection", "01", "allen", "innovation", "alibaba", "microsoft", "baidu"),
                *("tencent", "bytedance", "ibm", "nvidia", "amazon", "huawei", "iflytek", "databricks", "vicuna"),
                *(
                    "internlm",
                    "claude",
                    "gemini",
                    "bard",
                    "llama",
                    "copilot",
                    "grok",
                    "kimi",
                    "ernie",
                    "bing",
                    "alpaca",
                ),
                *("phi", "gemma"),
            }
        ),
        ("open ai", "open assistant", "large model", "gpt", "qwen", "chatglm", "baichuan"),
        (
            *("阿里", "百度", "腾讯", "字节", "华为", "讯飞", "谷歌", "微软", "千问", "文心", "智谱", "豆包"),
            *("深度求索", "月之暗面", "通义"),
        ),
    ),
}
