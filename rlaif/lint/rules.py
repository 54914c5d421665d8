"""Every rule of the linter: what it finds, why that matters, the way out, and from which share on it is how grave.

Where the thresholds are from: docs/lint.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = get_args(Level)  # the gravest first


class Rule(NamedTuple):
    """From the share `least` of the rows on it has its `level`; below that it is `below`."""

    what: str
    level: Level
    why: str
    way_out: str
    least: float = 0.0
    below: Level = "note"

    def at(self, share: float) -> Level:
        return self.level if share >= self.least else self.below


_CLEAN = "`rlaif clean DATASET --to FOLDER` drops such rows."
_CLEAN_CHOSEN = "`rlaif clean DATASET --to FOLDER --set {}=true` drops those whose chosen one is of that kind."
_IMPORT = "`rlaif import DATASET --to FOLDER` writes them as TRL takes them."

# Of a row, in the order of their bits (rlaif.lint.facts).
ROW: Mapping[str, Rule] = {
    "unreadable": Rule(
        "rows that cannot be read",
        "error",
        "A loader stops here, or gives a row of nulls.",
        "Mend the line; each must be one JSON object.",
    ),
    "not_text": Rule(
        "rows with a null, a number or a struct where text or messages belong",
        "error",
        "A trainer stops at the first of them.",
        _CLEAN,
    ),
    "mixed_types": Rule(
        "rows with text beside message lists",
        "error",
        "TRL adds the prompt to the answer: text and a list raise a TypeError before the first step.",
        f"Drop the prompt column if the conversations hold it. {_IMPORT}",
    ),
    "prompt_twice": Rule(
        "rows whose answers repeat the prompt column",
        "error",
        "TRL puts the prompt before each answer: the model sees it twice.",
        f"Drop the prompt column: TRL finds the shared beginning. {_IMPORT}",
    ),
    "dialect": Rule(
        "rows whose messages have other keys or roles than TRL's",
        "error",
        "Chat templates read `role` and `content`, and know system, user and assistant.",
        _IMPORT,
    ),
    "none_padded": Rule(
        "rows whose messages have fields that are null",
        "warning",
        "Chat templates ask whether a field such as `tool_calls` is there, and take null for a yes.",
        f"TRL's `remove_none_values` drops the fields as they are read. {_IMPORT}",
    ),
    "bad_label": Rule(
        "rows whose label is no true or false",
        "error",
        "KTO makes a tensor of the labels, then truths of it: null and text raise an error, -1 counts as true.",
        _IMPORT,
    ),
    "bad_margin": Rule(
        "rows whose margin is no number",
        "error",
        "RewardTrainer makes a tensor of the column, which fails at the first null.",
        "Drop the column, or give each row a number.",
    ),
    "no_prompt": Rule(
        "rows whose two sides share no turn",
        "error",
        "They answer different prompts, or the prompt is missing: what is learned depends on neither.",
        "Drop them, or give the prompt a column of its own.",
    ),
    "empty_prompt": Rule(
        "rows with an empty prompt",
        "error",
        "The model learns to answer nothing; chat templates may raise an error.",
        _CLEAN,
    ),
    "empty_response": Rule(
        "rows with an empty response",
        "error",
        "TRL takes them without a word: the model is trained to end at once, or never to.",
        _CLEAN,
    ),
    "identical": Rule(
        "rows whose chosen and rejected are the same",
        "error",
        "TRL takes them without a word; their gradient is nothing but noise.",
        _CLEAN,
    ),
    "prefix_mismatch": Rule(
        "rows whose conversations differ before their last turn",
        "error",
        "The two sides answer different conversations; TRL cuts at the first difference, in the midst of the history.",
        _CLEAN,
    ),
    "ends_on_user": Rule(
        "rows whose answer is not the assistant's",
        "error",
        "The model is trained on what users say.",
        _CLEAN,
    ),
    "role_order": Rule(
        "rows whose turns do not alternate",
        "warning",
        "Many chat templates raise an error for two turns of one role, or a prompt that ends with an answer.",
        f"Join or drop the turns. {_CLEAN}",
    ),
    "late_system": Rule(
        "rows with a system message after the first turn",
        "warning",
        "Many chat templates raise an error, others drop it.",
        "Move it to the front.",
    ),
    "empty_turn": Rule(
        "rows with an empty turn in the prompt",
        "warning",
        "The history has a hole: what comes after it does not follow.",
        "Look at where they come from; drop them.",
    ),
    "prompt_mismatch": Rule(
        "rows whose prompt column is no turn of their conversations",
        "warning",
        "The columns are out of step, or the prompt was shortened.",
        "Compare the two columns in the rows named here.",
    ),
    "prompt_too_long": Rule(
        "rows whose prompt alone fills max_length, by a guess of 4 bytes a token",
        "warning",
        "DPO and KTO drop them without a word; where all are dropped, training has no rows.",
        "Raise `max_length`, or shorten the prompts.",
    ),
    "row_too_long": Rule(
        "rows longer than max_length, by a guess of 4 bytes a token",
        "warning",
        "DPO and KTO cut the end of the answer off, RewardTrainer drops the row without a word.",
        "Raise `max_length`; a tokenizer of yours tells the true lengths.",
        least=0.05,
    ),
    "short_prompt": Rule(
        "rows with a prompt of under 8 characters",
        "note",
        "It hardly says what is asked; the label then rests on style alone.",
        "Look at a few.",
    ),
    "bad_text": Rule(
        "rows with control characters or text decoded wrongly",
        "warning",
        "Replacement characters, and UTF-8 read as Latin-1, teach the model to write them.",
        "Decode the source anew as UTF-8; ftfy mends what was decoded wrongly.",
        least=0.001,
    ),
}

# Of what one side of a row says; the row has it if a side has.
SIDE: Mapping[str, Rule] = {
    "role_tags": Rule(
        "rows with role tags or chat markup in an answer",
        "warning",
        "The model learns to speak for the user, and templates may read the markup as a turn.",
        _CLEAN,
    ),
    "critique_leak": Rule(
        "rows with an answer that speaks of a critique or revision",
        "warning",
        "A trace of how the data was made, which no user asked for.",
        _CLEAN,
    ),
    "preamble": Rule(
        'rows with an answer that begins like "Here is the revised response:"',
        "warning",
        "A trace of how the data was made, which no user asked for.",
        _CLEAN,
        least=0.001,
    ),
    "self_identification": Rule(
        "rows with an answer that names its model or maker",
        "warning",
        "The model learns to call itself by another one's name.",
        "`rlaif clean DATASET --to FOLDER` drops those whose chosen answer does; a rejected one may.",
        least=0.001,
    ),
    "truncated": Rule(
        "rows with an answer that looks cut off",
        "warning",
        "Chosen, it teaches to stop in the midst; rejected, the label rests on the end that is missing.",
        f"Raise the token limit of whatever wrote them. {_CLEAN_CHOSEN.format('truncated')}",
        least=0.02,
    ),
    "repetition": Rule(
        "rows with an answer that goes round in circles (Gopher's thresholds)",
        "warning",
        "Chosen, it teaches loops; rejected, the pair says nothing about content.",
        _CLEAN_CHOSEN.format("repetition"),
        least=0.01,
    ),
}

# How a side is written: told by the sides that have it, and by which side has it where only one has.
FORMATS: Mapping[str, str] = {
    "lists": "list items",
    "headings": "headings",
    "bold": "bold",
    "code": "code",
    "emoji": "emoji",
    "urls": "links",
}

_FORMAT_OUT = "Balance it: drop pairs in which only one side has it, or say in the principle that form is no merit."
SET: Mapping[str, Rule] = {
    "columns": Rule(
        "the columns have other names than TRL's",
        "error",
        "TRL looks for prompt, chosen, rejected, completion and label; a prompt by another name it does not see.",
        f"Rename them. {_IMPORT}",
    ),
    "no_trainer": Rule(
        "no pairs and no labels: several or rated answers",
        "warning",
        "No trainer of TRL takes them as they are.",
        "`rlaif import DATASET --to FOLDER` makes pairs of them.",
    ),
    "transcript": Rule(
        "conversations as one text, with speakers' names in it",
        "warning",
        "TRL takes the text as it stands: no chat template, and the model learns to write 'Human:'.",
        _IMPORT,
    ),
    "implicit_text": Rule(
        "texts without a prompt column",
        "warning",
        "TRL takes the common beginning, letter by letter, for the prompt: also that of the answers.",
        "Give the prompt a column of its own.",
    ),
    "duplicate_pairs": Rule(
        "rows that repeat an earlier row, but for case and white space",
        "warning",
        "They count twice; in two splits they make the test useless.",
        _CLEAN,
        least=0.001,
    ),
    "duplicate_prompts": Rule(
        "rows whose prompt an earlier row has",
        "note",
        "Unique prompts beat more pairs of one prompt (Tulu 3).",
        "Keep the pair with the widest margin; in a run of ours, `export.max_pairs_per_prompt: 1`.",
    ),
    "conflicting_labels": Rule(
        "rows that another one contradicts: the same texts with the opposite label",
        "warning",
        "One of the two is wrong, and together they teach nothing.",
        "`rlaif clean DATASET --to FOLDER` keeps the first of them; better drop both, or keep what most say.",
    ),
    "shared_prompts": Rule(
        "rows of a later split whose prompt is in an earlier one",
        "error",
        "What was trained on is no test.",
        "Split by prompt: all rows of one prompt on the same side.",
        least=0.01,
        below="warning",
    ),
    "near_duplicates": Rule(
        "rows that say nearly what an earlier row says",
        "warning",
        "They count twice, and the splits may share them.",
        "`rlaif clean DATASET --to FOLDER --set near=0.8` drops such rows.",
        least=0.05,
    ),
    "length_bias": Rule(
        "length alone tells which side is chosen",
        "warning",
        "A reward model finds the shortcut, and the policy grows (or shrinks) its answers.",
        "Drop pairs of very different length until the share is near 50%; in a run of ours, `export.max_length_gap`.",
    ),
    "refusal_chosen": Rule(
        "rows whose chosen refuses while the rejected complies",
        "warning",
        "Meant for harmful prompts; in bulk it teaches to refuse whatever is asked.",
        "Check that these prompts are harmful, and balance them with helpful ones.",
        least=0.25,
    ),
    "refusal_rejected": Rule(
        "rows whose rejected refuses while the chosen complies",
        "warning",
        "Meant for harmless prompts; in bulk it teaches to comply with whatever is asked.",
        "Check that these prompts are harmless.",
        least=0.25,
    ),
    "refusal_both": Rule(
        "rows in which both sides refuse",
        "warning",
        "The label is between two ways to say no.",
        _CLEAN_CHOSEN.format("refusal"),
        least=0.10,
    ),
    "format_bias": Rule(
        "form alone tells which side is chosen",
        "warning",
        "The model learns the form instead of what it holds.",
        _FORMAT_OUT,
    ),
    "class_balance": Rule(
        "good and bad answers are not of one number",
        "warning",
        "KTO weighs both classes the same only if desirable_weight times the good ones is 1 to 1.33 times the bad.",
        "",
    ),
    "category_balance": Rule(
        "the categories are of very different size",
        "note",
        "What is rare is hardly learned, and a mean over all hides it.",
        "Weigh or fill up the rare ones; report figures by category.",
    ),
}

RULES: Mapping[str, Rule] = {**ROW, **SIDE, **SET}
