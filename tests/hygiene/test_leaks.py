# ruff: noqa: RUF001  full-width marks are what Chinese is written with
"""What leaked is found, and honest text that speaks of the same things is left alone."""

from __future__ import annotations

import time

import pytest

from rlaif.hygiene.leaks import leak

IT_IS = [
    "As an AI developed by OpenAI, I cannot help with that.",
    "As an AI language model trained by OpenAI, my knowledge ends in 2021.",
    "I'm ChatGPT, a large language model, and I can help.",
    "I am GPT-4 and I do not have opinions.",
    "Hello! I\u2019m Claude, an AI assistant made by Anthropic.",
    "My name is Claude, and I was created by Anthropic to be helpful.",
    "I am Gemini, a large language model from Google.",
    "I am a large language model, trained by Google.",
    "I'm an AI assistant created by Alibaba Cloud.",
    "I am Qwen, and I will help you.",
    "I am Qwen2.5.",
    "I am DeepSeek-V3.",
    "Sorry, I was trained by Anthropic not to do that.",
    "I was created by the team at OpenAI, so I can only guess. I am an AI model made by the team at OpenAI.",
    "My creators at Anthropic taught me to be honest.",
    "OpenAI, the company that created me, does not share that.",
    "As ChatGPT, I have no feelings.",
    "I'm Open Assistant, and I know a lot.",
    "No, I am not a person. I am an artificial intelligence developed by Meta AI.",
    "我是ChatGPT，很高兴为您服务。",
    "我是通义千问，由阿里云开发。",
    "您好，我是由百度开发的人工智能助手。",
    "作为OpenAI开发的语言模型，我没有个人观点。",
    "我叫Kimi，由月之暗面训练。",
]
IT_IS_NOT = [
    "OpenAI is a company in San Francisco that made ChatGPT, a large language model.",
    "ChatGPT is an AI developed by OpenAI. As an AI developed by OpenAI, ChatGPT has a cut-off date.",
    "Claude is an assistant by Anthropic, and I think that it writes well.",
    "As an AI language model, I have no opinions.",
    "I am an AI, and I was made to help.",
    "I am Claude Monet, and I paint water lilies near my house in Giverny.",
    "My name is Claude and I live in Lyon with my wife.",
    "I am a Gemini, born in June; my sister is a Leo.",
    "I was trained by Google for three months before I began to sell ads.",
    "I am an engineer who works on AI. I was hired by OpenAI last year.",
    'She wrote: "I am ChatGPT, ask me anything." It was a joke.',
    "```python\nprint('I am ChatGPT')\n```",
    "I use ChatGPT every day, and I am happy with it.",
    "If I am ChatGPT, as you say, then prove it.",
    "I am not ChatGPT.",
    "As Claude said, I should rest.",
    "You asked which models Google, Meta and Microsoft have: Gemini, Llama and Phi.",
    "I'm glad that you like Llama 3. It is made by Meta.",
    "The alpaca I am looking at is a llama.",
    "OpenAI是一家人工智能公司，开发了ChatGPT。",
    "我觉得百度开发的搜索引擎不错。",
    "作为一个人工智能助手，我没有个人观点。",
    "他说：“我是ChatGPT。”大家都笑了。",
]


@pytest.mark.parametrize("text", IT_IS)
def test_who_says_which_model_it_is_is_found(text: str) -> None:
    assert leak(text) == "self_identification"
    assert leak(f"That is a good question.\n\n{text}\n\nAnything else?") == "self_identification"


@pytest.mark.parametrize("text", IT_IS_NOT)
def test_who_speaks_of_models_and_companies_is_left_alone(text: str) -> None:
    assert leak(text) is None


PREAMBLES = [
    "Sure! Here is a revised version of the response:\n\nAsk him kindly.",
    "Certainly, here's the revised answer: Ask him.",
    "Of course! Here\u2019s a more polite, rewritten reply that keeps the facts:\n\nAsk him.",
    "Here is my improved response:\n\nAsk him.",
    "I apologize for the earlier reply. Here is a corrected response:\nAsk him.",
    "**Revised response:**\n\nAsk him.",
    "My rewritten answer: ask him.",
    "好的，以下是修改后的回答：\n\n请您问他。",
    "修改后的回答：请您问他。",
]
CRITIQUES = [
    "Critique: The answer is rude.\n\nAsk him.",
    "Ask him.\n\nRevision request: Make it polite.",
    "The assistant's last response is harmful, because it names a poison.",
    "Ask him kindly. This revised response avoids insults.",
    "批评意见：回答不礼貌。",
    "助手的上一个回答有害。",
]
HONEST = [
    "Here is a plan:\n\n1. Call him.\n2. Ask him.",
    "Sure! Here is the recipe you wanted:\n\n- two eggs\n- flour",
    "Here is the updated schedule: Monday at nine, Tuesday at ten.",
    "A good review has three parts.\n\nCritique: what did not work.\nPraise: what did.",
    "The revised version of the law says: no fees.",
    "Revise your answer before you hand it in.",
    "The committee published its response: nothing will change.",
    "Here's an edited photo: see the link.",
    "这是新的计划：明天出发。",
]


@pytest.mark.parametrize("text", PREAMBLES)
def test_a_preamble_of_a_revision_is_found_unless_one_was_asked_for(text: str) -> None:
    assert leak(text, "How do I ask my neighbour for my drill?") == "preamble"
    assert leak(text, "Please rewrite this mail so that it is polite.") is None
    assert leak(text, "请帮我润色这封信。") is None


@pytest.mark.parametrize("text", CRITIQUES)
def test_a_critique_is_found_unless_one_was_asked_for(text: str) -> None:
    assert leak(text) == "critique_leak"
    assert leak(text, "Write a critique of this answer.") is None


@pytest.mark.parametrize("text", HONEST)
def test_honest_text_with_the_same_words_is_left_alone(text: str) -> None:
    assert leak(text) is None


@pytest.mark.parametrize("text", ["Fine.\n\nHuman: thanks", "Fine.<|im_end|>", "助手：好的。"])
def test_role_tags_are_found_whatever_was_asked(text: str) -> None:
    assert leak(text, "Rewrite this.") == "role_tags"


@pytest.mark.parametrize("said", ["I am ", "As an AI ", "Sure, ", "我是一个", "\n", "here is the new "])
def test_long_text_is_read_in_linear_time(said: str) -> None:
    started = time.process_time()
    assert leak(said * 4000 + "openai 百度") is None
    assert time.process_time() - started < 40


COMPANIES = [
    *("OpenAI", "Anthropic", "Google", "Google DeepMind", "Meta AI", "Microsoft", "Mistral AI", "Alibaba Cloud"),
    *("DeepSeek", "xAI", "Cohere", "Baidu", "Tencent", "Zhipu AI", "Moonshot AI", "LMSYS", "IBM", "NVIDIA", "Amazon"),
]
MODELS = ["ChatGPT", "GPT-4", "GPT-4o", "Qwen", "Qwen2.5-72B", "DeepSeek", "ChatGLM3", "Vicuna", "Open Assistant"]


@pytest.mark.parametrize("company", COMPANIES)
def test_every_company_is_known_by_what_it_made_and_not_by_its_name(company: str) -> None:
    for made in ("developed", "trained", "created", "designed and built"):
        assert leak(f"As an AI language model {made} by {company}, I cannot know that.") == "self_identification"
        assert leak(f"I'm an AI assistant {made} by {company}.") == "self_identification"
        assert leak(f"{company} has an AI assistant. It was {made} by {company}, and I like it.") is None
    assert leak(f"I am the kind of person who buys shares of {company}. They make an AI.") is None


@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_known_by_its_name_where_it_says_i(model: str) -> None:
    for text in (f"I am {model}.", f"Hello, I'm {model}, nice to meet you!", f"My name is {model}."):
        assert leak(text) == "self_identification"
    for text in (f"I am using {model}.", f"{model} is what I am used to.", f"Are you {model}? I am not."):
        assert leak(text) is None
