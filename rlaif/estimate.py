"""What is still to be asked, and what it will cost: from settings alone, or from the records that really ran."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from math import exp, sqrt
from typing import Any  # plain JSON

from rlaif.constitution import Constitution
from rlaif.context import Context
from rlaif.judges.listwise import Listwise
from rlaif.judges.pairwise import Pairwise
from rlaif.judges.reward import RewardModel
from rlaif.llm import THINKING_TOKENS, Tally
from rlaif.prices import PICO, Price
from rlaif.stages import Stage
from rlaif.stages.contrast import Contrast
from rlaif.stages.judge import Judge, Rate
from rlaif.stages.revise import Revise
from rlaif.stages.sample import Sample
from rlaif.statistics import Z_95
from rlaif.templates import VARIABLES, Templates
from rlaif.types import Record


@dataclass(frozen=True, slots=True)
class Range:
    """A number that is not known well: what it will hardly be under, likely be, and hardly be over."""

    low: float = 0.0
    middle: float = 0.0
    high: float = 0.0

    def __add__(self, other: Range) -> Range:
        """Low with low: what makes one number high makes the others high too."""
        return Range(self.low + other.low, self.middle + other.middle, self.high + other.high)

    def __mul__(self, other: Range | float) -> Range:
        by = other if isinstance(other, Range) else Range(other, other, other)
        return Range(self.low * by.low, self.middle * by.middle, self.high * by.high)


@dataclass(frozen=True, slots=True)
class Line:
    """What one stage will still ask of one model; `cost_usd` is None where the price is unknown."""

    stage: str
    model: str
    calls: int  # to be sent: at most (before), or expected (from_sample)
    from_journal: int  # answered already
    prompt_tokens: Range
    completion_tokens: Range
    cost_usd: Range | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """The table and its sums. `cost_usd` is None if a model that will be asked has no price: see `unpriced`."""

    lines: tuple[Line, ...]
    time_s: Range | None = None
    records: int = 0  # that it is for
    unmeasured: tuple[str, ...] = ()  # stages whose calls the journal answered in the sample: not in the sums

    @property
    def calls(self) -> int:
        return sum(line.calls for line in self.lines)

    @property
    def from_journal(self) -> int:
        return sum(line.from_journal for line in self.lines)

    @property
    def prompt_tokens(self) -> Range:
        return sum((line.prompt_tokens for line in self.lines), start=Range())

    @property
    def completion_tokens(self) -> Range:
        return sum((line.completion_tokens for line in self.lines), start=Range())

    @property
    def cost_usd(self) -> Range | None:
        return None if self.unpriced else self.priced_usd

    @property
    def priced_usd(self) -> Range:
        """Of the models whose price is known."""
        return sum((line.cost_usd for line in self.lines if line.cost_usd is not None), start=Range())

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        sums = {"calls": self.calls, "from_journal": self.from_journal}
        ranges = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        unknown = {"cost_usd": self.cost_usd, "time_s": self.time_s}
        known = {name: None if one is None else asdict(one) for name, one in (ranges | unknown).items()}
        sums |= {"records": self.records}
        return sums | known | {"unmeasured": self.unmeasured, "stages": [asdict(line) for line in self.lines]}

    @property
    def unpriced(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(line.model for line in self.lines if line.cost_usd is None and line.calls))


@dataclass(frozen=True, slots=True)
class Asked:
    """The model of a role: its name in the counts, and what changes how it is asked and billed."""

    model: str
    price: Price | None
    votes: bool = False  # gives no log-probabilities
    thinks: bool = False
    batch: bool = False


@dataclass(frozen=True, slots=True)
class PromptSet:
    """How many prompts of a set, the UTF-8 bytes of one, on average, and the responses that come with it."""

    records: int
    bytes_each: float
    responses: int = 0
    response_bytes: float = 0.0  # of one


class Measured:
    """Prompts as they are read, and what a set of them is like once they are through."""

    def __init__(self, prompts: Iterable[Record]) -> None:
        self._prompts = prompts
        self._sums: dict[str, tuple[int, int, int, int]] = {}  # records, their bytes; responses of one, bytes of all

    def __iter__(self) -> Iterator[Record]:
        self._sums.clear()
        for record in self._prompts:
            records, size, responses, given = self._sums.get(record.prompt_set, (0, 0, 0, 0))
            size += sum(len(message.content.encode()) for message in record.prompt)
            given += sum(len(response.text.encode()) for response in record.responses)
            self._sums[record.prompt_set] = records + 1, size, max(responses, len(record.responses)), given
            yield record

    @property
    def sets(self) -> dict[str, PromptSet]:
        return {
            label: PromptSet(records, size / records, responses, given / records / max(1, responses))
            for label, (records, size, responses, given) in self._sums.items()
        }


def foreseen(
    context: Context, stages: Sequence[tuple[str, Stage]], voters: Set[str], sets: Mapping[str, PromptSet], pending: int
) -> Estimate:
    """After a dry run with this context that let `pending` records go; `voters` are roles."""
    models = {}
    for role, llm in context.models.items():
        known = llm.known_traits()
        models[role] = Asked(llm.name, llm.price, role in voters, known is not None and known.thinks, llm.batch)
    return before(stages, models, sets, context.templates, context.constitution, context.tallies, pending)


# Nothing is known yet, so these are wide. Tokens a byte: 4 bytes of English are about a token, of code and
# Chinese 2.5, of plain prose with a large vocabulary 5.
_TOKENS_A_BYTE = Range(1 / 5, 1 / 4, 1 / 2.5)
# Roles and turns, which the provider's template writes around a prompt's messages; some do not count them.
_AROUND = Range(0, 15, 60)
# Of max_tokens: people set it so that answers end before it, models without an end run into it.
_OF_MAX_TOKENS = Range(0.1, 0.5, 1.0)
# Of the calls a later stage may make: filters, duplicates and clean critiques leave some of them out. With a model
# of 135M parameters the judge of `cai` was asked 0.22 of them.
_OF_LATER_CALLS = Range(0.2, 0.7, 1.0)
# A stage of the user's own says nothing of its texts.
_OWN_MAX_TOKENS = 512


def before(
    stages: Sequence[tuple[str, Stage]],
    models: Mapping[str, Asked],
    prompts: Mapping[str, PromptSet],
    templates: Templates,
    constitution: Constitution,
    tallies: Mapping[tuple[str, str], Tally],
    pending: int,
) -> Estimate:
    """From settings, the prompts' lengths and a dry run; nothing was sent.

    Calls are the most that the stages may make (`Stage.plan`) for the records that still wait, less those the
    journal answers as far as a dry run sees: it ends at each record's first unanswered call.

    Args:
        stages: (name, stage), in order.
        models: by role.
        prompts: by the set's name, as in `Record.prompt_set`.
        templates: of the run; their lengths count.
        constitution: of the run; so do its principles'.
        tallies: of the dry run, by (stage, model).
        pending: records that the dry run let go.
    """
    records = sum(one.records for one in prompts.values())
    waiting = pending / records if records else 0.0
    sizes = _sizes(templates, constitution)
    sums: dict[tuple[str, str], _Sum] = {}
    for label, one in prompts.items():
        given = _Given(sizes, one, len(constitution.principles), models)
        for name, share, ask in _asks(label, stages, given):
            line = sums.setdefault((name, models[ask.role].model), _Sum(models[ask.role]))
            line.add(one.records, share, ask)
    return Estimate(tuple(line.as_line(*key, waiting, tallies.get(key, Tally())) for key, line in sums.items()))


def from_sample(
    tallies: Mapping[tuple[str, str], Tally],
    prices: Mapping[str, Price | None],
    ran: int,
    left: int,
    wall_s: float,
    at_once: int,
    *,
    known: Mapping[tuple[str, str], int] | None = None,
    variation: float = 1.0,
    batch: bool = False,
) -> Estimate:
    """For the `left` records, from the `ran` ones: calls and tokens a record, times the records.

    Ranges are 95% by a normal approximation of the logarithm: x exp(-h) to x exp(h) with
    h = 1.96 variation sqrt(1 / ran + 1 / left). Counts hold sums, no squares, so the spread between records is not
    measured: `variation` (standard deviation over mean of what a record uses) is 1 unless the caller knows it, more
    than texts with a limit have. The records that ran must be like the others: not the first of a sorted set.
    Time is between that of a server that was full already and one that takes `at_once` records as fast as it took
    these.

    Args:
        tallies: of the pipeline's stages, for these records, by (stage, model). Their tokens are of calls that were
            sent; calls answered by the journal count with the same mean.
        prices: by the model's name.
        ran: records that are through, at least one.
        left: records that are not.
        wall_s: what the first took.
        at_once: records under way in the whole run.
        known: calls of the records that are left whose answers the journal has, by (stage, model).
        variation: see above.
        batch: at the price of the batch API.
    """
    half = Z_95 * variation * sqrt(1 / ran + 1 / left) if left else 0.0
    spread = Range(exp(-half), 1.0, exp(half))
    lines, most = [], 0.0
    for (stage, model), tally in tallies.items():
        answered = tally.sent - tally.retried - tally.failed
        if answered <= 0:
            continue
        needed = answered + tally.from_journal
        scale = needed / answered / ran
        rest = max(0.0, left - (known or {}).get((stage, model), 0) * ran / needed)  # as if so many records were left
        most = max(most, rest)
        price = prices[model]
        cost = None
        if price is not None:
            tokens = tally.prompt_tokens, tally.cached_tokens, tally.completion_tokens, tally.written_tokens
            cost = spread * (price.cost(*tokens, batch=batch) / PICO * scale * rest)
        tokens_of = [spread * (count * scale * rest) for count in (tally.prompt_tokens, tally.completion_tokens)]
        lines.append(Line(stage, model, round(needed * rest / ran), 0, tokens_of[0], tokens_of[1], cost))
    full, faster = wall_s / ran, wall_s / max(ran, min(at_once, left))
    return Estimate(tuple(lines), spread * most * Range(faster, sqrt(full * faster), full))


@dataclass(frozen=True, slots=True)
class _Ask:
    """A kind of call a stage makes: how often for a record at most, and the tokens of one, thoughts left out."""

    role: str
    calls: float
    prompt: Range
    completion: Range


@dataclass(slots=True)
class _Sum:
    asked: Asked
    calls: float = 0.0
    prompt: Range = Range()
    completion: Range = Range()

    def add(self, records: int, share: Range, ask: _Ask) -> None:
        calls = records * ask.calls
        thoughts = _OF_MAX_TOKENS * (THINKING_TOKENS if self.asked.thinks else 0)
        self.calls += calls
        self.prompt += ask.prompt * share * calls
        self.completion += (ask.completion + thoughts) * share * calls

    def as_line(self, stage: str, model: str, waiting: float, tally: Tally) -> Line:
        """Less what needs no call: of the records that are through, and of the others what the journal answers."""
        to_send = max(float(tally.unsent), min(self.calls * waiting, self.calls - tally.from_journal))
        scale = to_send / self.calls if self.calls else 0.0
        prompt, completion = self.prompt * scale, self.completion * scale
        return Line(
            stage, model, round(to_send), tally.from_journal, prompt, completion, self._cost(prompt, completion)
        )

    def _cost(self, prompt: Range, completion: Range) -> Range | None:
        """Without the provider's prompt cache, which makes it less."""
        price, batch = self.asked.price, self.asked.batch
        if price is None:
            return None
        low, middle = (
            price.cost(round(p), 0, round(c), batch=batch) / PICO
            for p, c in ((prompt.low, completion.low), (prompt.middle, completion.middle))
        )
        return Range(low, middle, price.cost_at_most(round(prompt.high), round(completion.high), batch=batch) / PICO)


@dataclass(frozen=True, slots=True)
class _Given:
    """What prompts are made of."""

    sizes: Mapping[tuple[str, bool], float]  # bytes around the texts, by (template, with worked examples)
    prompts: PromptSet
    principles: int
    models: Mapping[str, Asked]

    @property
    def voters(self) -> frozenset[str]:
        return frozenset(role for role, asked in self.models.items() if asked.votes)

    def shown(self, template: str | None, *, few_shot: bool = True, more: int = 0) -> Range:
        """The tokens of a template with the record's prompt, and of so many bytes more."""
        size = self.sizes[template, few_shot] if template is not None else 0.0
        return _TOKENS_A_BYTE * (size + self.prompts.bytes_each + more) + _AROUND


def _sizes(templates: Templates, constitution: Constitution) -> dict[tuple[str, bool], float]:
    """For the mean principle."""
    principles = constitution.principles
    sizes = {}
    for name, variables in VARIABLES.items():
        for few_shot in (True, False):
            empty: dict[str, object] = dict.fromkeys(variables, "")
            rendered = (
                templates.render(name, (), **empty | {"principle": principle, "few_shot": few_shot})
                for principle in principles
            )
            total = sum(len(message.content.encode()) for messages in rendered for message in messages)
            sizes[name, few_shot] = total / len(principles)
    return sizes


def _asks(label: str, stages: Sequence[tuple[str, Stage]], given: _Given) -> Iterator[tuple[str, Range, _Ask]]:
    """(stage, share of the calls that will be made, kind of call) for the records of a set, in order."""
    candidates, share = given.prompts.responses, Range(1.0, 1.0, 1.0)
    response = _TOKENS_A_BYTE * given.prompts.response_bytes
    for name, stage in stages:
        if stage.only and label not in stage.only:
            continue
        calls, after = stage.plan(candidates, given.principles, given.voters)
        kinds = list(_kinds(stage, candidates, calls, response, given)) if calls else []
        yield from ((name, share, ask) for ask in kinds)
        if kinds:
            share = _OF_LATER_CALLS
            response = kinds[-1].completion if after > candidates else response
        candidates = after


def _kinds(stage: Stage, candidates: int, calls: int, response: Range, given: _Given) -> Iterator[_Ask]:
    """The calls of a stage for a record by kind, `response` being the tokens of one; the last kind writes one."""
    match stage:
        case Sample():
            prompt = given.shown(None, more=len((stage.system or "").encode()))
            for role in stage.models:  # of a pool each is drawn as often as the others
                yield _Ask(role, calls / len(stage.models), prompt, _OF_MAX_TOKENS * stage.max_tokens)
        case Contrast():
            for template in ("contrast_strong", "contrast_weak"):
                yield _Ask(stage.model, calls / 2, given.shown(template), _OF_MAX_TOKENS * stage.max_tokens)
        case Revise():
            yield from _revisions(stage, calls, response, given)
        case Judge():
            yield from _verdicts(stage, candidates, response, given)
        case Rate():
            sampled = stage.by.calls(given.voters) == stage.by.samples > 1
            anchors = (
                [len((aspect.judge or "").encode()) for aspect in stage.rubric.principles] if stage.rubric else [0]
            )
            prompt = given.shown("judge_rubric", more=max(anchors)) + response
            yield _Ask(stage.by.model, calls, prompt, _choice(16 if sampled else 3))
        case _:
            for role in stage.roles():
                prompt = given.shown(None) + response
                yield _Ask(role, calls / len(stage.roles()), prompt, _OF_MAX_TOKENS * _OWN_MAX_TOKENS)


def _revisions(stage: Revise, calls: int, response: Range, given: _Given) -> Iterator[_Ask]:
    critique = Range()
    if stage.critique:
        critique = _OF_MAX_TOKENS * stage.critique_max_tokens
        calls //= 2
        yield _Ask(stage.model, calls, given.shown("critique", few_shot=stage.few_shot) + response, critique)
    template = "revise" if stage.critique else "revise_directly"
    prompt = given.shown(template, few_shot=stage.few_shot) + response + critique
    yield _Ask(stage.model, calls, prompt, _OF_MAX_TOKENS * stage.max_tokens)


def _verdicts(stage: Judge, candidates: int, response: Range, given: _Given) -> Iterator[_Ask]:
    """Those of a cascade as if no judge were ever sure."""
    for judge, count in stage.planned(candidates, given.principles, given.voters):
        if isinstance(judge, Pairwise):
            yield from _pairwise(judge, count, response, given)
            continue
        if isinstance(judge, Listwise):
            prompt, most = given.shown("judge_listwise") + response * candidates, judge.max_tokens(candidates)
        elif isinstance(judge, RewardModel):
            prompt, most = given.shown(None) + response, 0
        else:
            prompt, most = given.shown("judge_pairwise") + response * 2, 16
        for role in judge.roles():
            yield _Ask(role, count / len(judge.roles()), prompt, _choice(most))


def _pairwise(by: Pairwise, calls: int, response: Range, given: _Given) -> Iterator[_Ask]:
    shown, thoughts = response * 2, Range()
    if by.reasoning:
        thoughts = _OF_MAX_TOKENS * by.reasoning_max_tokens
        reasoned = 2 * calls // by.calls_a_pair(given.voters)  # once in each order
        calls -= reasoned
        yield _Ask(by.model, reasoned, given.shown("judge_pairwise_reason") + shown, thoughts)
    template = "judge_pairwise_decide" if by.reasoning else "judge_pairwise"
    most = 16 if by.model in given.voters else 3
    yield _Ask(by.model, calls, given.shown(template) + shown + thoughts, _choice(most))


def _choice(max_tokens: int) -> Range:
    """A letter or a digit, with what a model says around it."""
    return Range(min(1, max_tokens), min(2, max_tokens), max_tokens)
