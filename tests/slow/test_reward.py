"""The reward backend on small random classifiers made here: scores are those of the plain model, in any batch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rlaif
from rlaif.backends import ModelSpec, identity_of
from rlaif.errors import ConfigError, ProviderError
from rlaif.store import RunFolder
from rlaif.types import Message, Request

torch = pytest.importorskip("torch", reason="needs the [train] extra")
transformers = pytest.importorskip("transformers", reason="needs the [train] extra")

from rlaif.backends.reward import Scorer  # noqa: E402
from rlaif.backends.transformers import TransformersBackend  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # torch and transformers deprecate among themselves.
    pytest.mark.filterwarnings("default"),
]

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE
ANSWERS = ["Yes.", "No, and here is why, at some length: it rains.", "Perhaps tomorrow", "Bees!", "", "A or B?"]
Made = Callable[..., Path]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Makes a model folder: two small layers of random weights and a byte-level tokenizer."""

    def made(
        template: str | None = TEMPLATE, labels: int | None = 1, padding: int | None = 4, encoder: bool = False
    ) -> Path:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        specials = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|pad|>"]
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=specials, initial_alphabet=alphabet)
        tokenizer.train_from_iterator(ANSWERS, trainer)
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="<|end|>", chat_template=template
        )
        torch.manual_seed(7)
        sizes = {"vocab_size": len(fast), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
        shape = sizes | {"num_attention_heads": 4, "max_position_embeddings": 256, "pad_token_id": padding}
        shape |= {"initializer_range": 0.3}
        if encoder:
            model = transformers.BertForSequenceClassification(transformers.BertConfig(num_labels=labels, **shape))
        elif labels is None:
            model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape))
        else:
            model = transformers.LlamaForSequenceClassification(transformers.LlamaConfig(num_labels=labels, **shape))
        folder = tmp_path_factory.mktemp("made") / "tiny"
        model.save_pretrained(folder)
        fast.save_pretrained(folder)
        return folder

    return made


def spec(folder: Path, **more: Any) -> ModelSpec:  # Any: ModelSpec's own fields
    return ModelSpec(provider="reward", model=str(folder), **{"slots": 8, **more})


def ask(answer: str, *before: Message) -> Request:
    turns = before or (Message("system", "Be brief."), Message("user", "Will it rain?"))
    return Request("m", (*turns, Message("assistant", answer)), temperature=0.0)


def plainly(folder: Path, request: Request) -> float:
    """What anyone's model says of it, alone and not padded."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    turns = [{"role": message.role, "content": message.content} for message in request.messages]
    with torch.no_grad():
        return float(model(tokenizer.apply_chat_template(turns, return_tensors="pt")["input_ids"]).logits[0, 0])


async def scored(folder: Path, requests: list[Request], logs: Path, **settings: Any) -> list[float]:
    backend = TransformersBackend(spec(folder, **settings), logs)
    try:
        replies = await asyncio.gather(*(backend.complete(request) for request in requests))
    finally:
        await backend.close()
    assert all(reply.usage.completion_tokens == 0 < reply.usage.prompt_tokens for reply in replies)
    return [float(reply.text) for reply in replies]


@pytest.mark.parametrize("form", [{}, {"padding": None}, {"padding": 0}, {"encoder": True}])
async def test_scores_are_those_of_the_plain_model_alone_and_in_a_batch(
    form: dict[str, Any], make: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(**form)
    sizes: list[int] = []
    real = Scorer._scores

    def noted(self: Scorer, rows: Any, padding: int) -> list[float]:
        sizes.append(len(rows))
        return real(self, rows, padding)

    monkeypatch.setattr(Scorer, "_scores", noted)
    requests = [ask(answer) for answer in ANSWERS]
    expected = [plainly(folder, request) for request in requests]
    assert max(expected) - min(expected) > 0.1
    assert await scored(folder, requests, tmp_path) == pytest.approx(expected, abs=1e-4)
    assert sum(sizes) == 6
    assert (max(sizes) == 6) == (form.get("padding", 4) is not None)
    for request, value in zip(requests[:2], expected, strict=False):
        assert await scored(folder, [request], tmp_path, slots=1) == pytest.approx([value], abs=1e-4)


async def test_a_template_without_a_system_role_has_the_system_turn_in_the_first_one(
    make: Made, tmp_path: Path
) -> None:
    folder = make(NO_SYSTEM)
    folded = ask("Yes.", Message("user", "Be brief.\n\nWill it rain?"))
    assert await scored(folder, [ask("Yes.")], tmp_path) == pytest.approx([plainly(folder, folded)], abs=1e-4)


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ({"labels": 3}, "gives 3 numbers, not one"),
        ({"labels": None}, "no head to score with"),
        ({"template": None}, "no chat template"),
    ],
)
async def test_what_is_no_reward_model_says_so(form: dict[str, Any], why: str, make: Made, tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match=why) as caught:
        await scored(make(**form), [ask("Yes.")], tmp_path)
    assert caught.value.kind == "not_found"
    assert caught.value.fatal


async def test_with_an_adapter_the_base_has_no_head_and_the_adapter_brings_it(make: Made, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="needs the [train] extra")
    base, adapter = make(labels=None), tmp_path / "adapter"
    torch.manual_seed(3)
    bare = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    lora = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(bare, lora).eval()
    adapted.save_pretrained(adapter)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    expected = []
    for request in map(ask, ANSWERS):
        turns = [{"role": message.role, "content": message.content} for message in request.messages]
        with torch.no_grad():
            ids = tokenizer.apply_chat_template(turns, return_tensors="pt")["input_ids"]
            expected.append(float(adapted(input_ids=ids).logits[0, 0]))
    found = await scored(base, [ask(answer) for answer in ANSWERS], tmp_path, lora=str(adapter))
    assert found == pytest.approx(expected, abs=1e-4)
    assert identity_of(spec(base, lora=str(adapter))) != identity_of(spec(base))


async def test_a_conversation_that_is_too_long_is_said_to_be(make: Made, tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match=r"prompt tokens exceed the 256 of") as caught:
        await scored(make(), [ask("rain " * 300)], tmp_path)
    assert caught.value.kind == "context_length"


def test_a_copy_of_the_folder_is_the_same_model_and_other_weights_are_not(make: Made, tmp_path: Path) -> None:
    folder = make()
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert identity_of(spec(folder)) == identity_of(spec(copy))
    assert identity_of(spec(folder)).startswith("reward:")
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert identity_of(spec(folder)) != identity_of(spec(copy))


def test_a_whole_run_scores_each_response_once_and_asks_no_other_question(make: Made, tmp_path: Path) -> None:
    folder = make()

    def run(**more: Any) -> rlaif.Result:
        return rlaif.generate(
            "small",
            policy="scripted",
            limit=3,
            run="r",
            runs_dir=tmp_path,
            set=(f"models.reward=reward/{folder}", "judge.by=reward"),
            environment={},
            **more,
        )

    planned = run(dry_run=True)
    assert planned.estimate is not None
    assert not planned.estimate.unpriced
    result = run()
    assert (result.status, result.failed) == ("done", 0)
    sent = {(stage["stage"], stage["model"]): stage["sent"] for stage in result.summary["stages"]}
    assert sent["preflight", "tiny"] == 0
    records = list(RunFolder(tmp_path, "r").records())
    judged = [verdict for record in records for verdict in record.verdicts]
    assert {verdict.judge for verdict in judged} == {"tiny"}
    assert {verdict.method for verdict in judged} == {"reward"}
    assert sent["judge", "tiny"] <= sum(len(record.candidates()) for record in records)
    notices = json.dumps(result.summary)
    assert "votes by sampling" not in notices


def test_a_reward_model_is_not_asked_for_words(make: Made, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"only gives scores; judge with it: by: \{kind: reward, model: judge\}"):
        rlaif.generate("small", policy="scripted", judge=f"reward/{make()}", limit=1, runs_dir=tmp_path, run="r")
