"""The coefficients of rlaif/hygiene/refusal.py, from the sentences in texts/ and documents made of them.

    python benchmarks/refusals/train.py [--check]

Needs scikit-learn. Chance comes from the sentences themselves, so the same texts give the same file.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from rlaif.hygiene.refusal import CLASSES, KINDS, UNKNOWN, Model, features, grams, model_of, split

TEXTS = Path(__file__).parent / "texts"
TARGET = Path(__file__).parents[2] / "rlaif" / "hygiene" / "refusal.json"
VARIANTS = 10  # of a line at most
LEAST = 0.26  # a smaller weight is left out
FOLDS = 8
Document = Sequence[Sequence[float]]


class Line(NamedTuple):
    """A line of texts/, with `{a|b}` and `<slot>`, and some of the sentences that it stands for."""

    of: str
    line: str
    variants: Sequence[str]

    @property
    def chinese(self) -> bool:
        return re.search("[\u4e00-\u9fff]", self.line) is not None


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--check", action="store_true", help="write nothing; fail if the file is another")
    given = arguments.parse_args()
    content = train()
    if given.check:
        raise SystemExit(as_text(content) != TARGET.read_text("utf-8"))
    TARGET.write_text(as_text(content), "utf-8")
    print(f"{TARGET.stat().st_size:,} bytes, {len(content['grams']):,} n-grams")


@threadpool_limits.wrap(limits=1)  # threads are slower here, and add in another order
def train() -> dict[str, Any]:
    """Documents are read by a model of clauses that hasn't seen the lines they are made of."""
    lines = read_lines()
    cues = {"cues": "", "early": ""}
    for row in (TEXTS / "cues.txt").read_text("utf-8").splitlines():
        where, _, words = row.partition(": ")
        for name in cues if where == "anywhere" else ["early"]:
            cues[name] = f"{cues[name]} {words}".strip()
    content: dict[str, Any] = {**cues, "lexicon": words_of(lines), "document": [], "grams": {}}
    rows: list[tuple[list[float], str]] = []
    for fold in range(FOLDS):
        others = [line for i, line in enumerate(lines) if i % FOLDS != fold]
        model = model_of(content | {"grams": clause_model(others, content["lexicon"])})
        rows += document_rows([line for i, line in enumerate(lines) if i % FOLDS == fold], model, f"{fold}")
    return content | {"document": document_model(rows), "grams": clause_model(lines, content["lexicon"])}


def as_text(content: Mapping[str, Any]) -> str:
    def dumped(value: object) -> str:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    return "\n".join([
        "{",
        *(f'"{name}": {dumped(content[name])},' for name in ("cues", "early", "lexicon")),
        '"document": [', ",\n".join(map(dumped, content["document"])), "],",
        '"grams": {', ",\n".join(f"{dumped(gram)}: {dumped(w)}" for gram, w in content["grams"].items()), "}",
        "}", "",
    ])  # fmt: skip


def read_lines() -> list[Line]:
    slots = {}
    for row in (TEXTS / "slots.txt").read_text("utf-8").splitlines():
        name, _, values = row.partition(": ")
        slots[name] = [value.strip() for value in values.split("|")]
    lines: list[Line] = []
    for file in sorted(TEXTS.glob("*.txt")):
        of = file.stem
        for row in file.read_text("utf-8").splitlines():
            if row.startswith("# "):
                of = row[2:]
            elif of in CLASSES:
                lines.append(Line(of, row, variants(row, slots)))
    return sorted(lines, key=lambda line: (line.of, line.chinese, Random(line.line).random()))


def variants(line: str, slots: Mapping[str, Sequence[str]]) -> list[str]:
    return list({filled(line, slots, Random(f"{line}/{i}")): None for i in range(VARIANTS)})


CHOICE, SLOT = re.compile(r"\{([^{}]*)\}"), re.compile(r"<(\w+)>")


def filled(line: str, slots: Mapping[str, Sequence[str]], chance: Random) -> str:
    def slot(found: re.Match[str]) -> str:
        value = chance.choice(slots[found[1].lower()])
        return value[:1].upper() + value[1:] if found[1][0].isupper() else value

    while CHOICE.search(line):
        line = CHOICE.sub(lambda found: chance.choice(found[1].split("|")), line)
    line = re.sub(r"  +", " ", SLOT.sub(slot, line)).strip()
    return line[:1].upper() + line[1:]


def words_of(lines: Sequence[Line]) -> list[str]:
    """Words of the lines themselves, not of what fills their slots; those of `inform` only if two lines have them.

    Synonyms are one entry.
    """
    own: Counter[str] = Counter()
    for line in lines:
        bare = re.sub(r"[{}|]", " ", SLOT.sub(" ", line.line))
        words = {word for clause in split(bare) for word in clause}
        own.update(dict.fromkeys(words, 1 if line.of == "inform" else 2))
    synonyms = (TEXTS / "synonyms.txt").read_text("utf-8").replace(":", "").splitlines()
    grouped = {word for row in synonyms for word in row.split()}
    return synonyms + sorted(word for word, count in own.items() if count > 1 and word not in grouped)


def clause_model(lines: Sequence[Line], lexicon: Sequence[str]) -> dict[str, list[float]]:
    """Weights of the n-grams that two lines have."""
    firsts = [entry.split()[0] for entry in lexicon]
    numbers = {word: number for number, entry in enumerate(lexicon, 2) for word in entry.split()}
    bags, y = [], []
    seen: Counter[int] = Counter()
    for line in lines:
        of_line = [grams(list(chain.from_iterable(split(text))), numbers) for text in line.variants]
        seen.update({gram for bag in of_line for gram in bag})
        bags += of_line
        y += [CLASSES.index(line.of)] * len(of_line)
    known = sorted(gram for gram, count in seen.items() if count > 1 and gram != UNKNOWN)
    place = {gram: i for i, gram in enumerate(known)}
    at = [(row, place[gram]) for row, bag in enumerate(bags) for gram in sorted(bag) if gram in place]
    r, c = zip(*at, strict=True)
    x = csr_matrix((np.ones(len(at)), (r, c)), shape=(len(bags), len(known)))
    fitted = LogisticRegression(C=0.5, max_iter=200, tol=1e-3).fit(x, y)
    # Only differences count: those to the last class, whose own are then 0 and left out.
    relative = (fitted.coef_ - fitted.coef_[-1])[:-1].T
    weights = {"": rounded((fitted.intercept_ - fitted.intercept_[-1])[:-1])}
    return weights | {
        text_of(g, firsts): rounded(w) for g, w in zip(known, relative, strict=True) if np.abs(w).max() >= LEAST
    }


def text_of(gram: int, firsts: Sequence[str]) -> str:
    """The opposite of `number_of`."""
    length = (gram >> 36) + 1
    numbers = [gram >> 12 * i & 4095 for i in reversed(range(length))]
    return " ".join(
        ("^" if i < length - 1 else "$") if n == 0 else "_" if n == UNKNOWN else firsts[n - 2]
        for i, n in enumerate(numbers)
    )


def rounded(values: Sequence[float], digits: int = 2) -> list[float]:
    return [round(float(value), digits) for value in values]


# Of a pattern in texts/documents.txt.
LETTERS = dict(zip("RJMUDOCGIi", (*CLASSES, CLASSES[-1]), strict=True))
GREETED = 0.3
TIMES = 3  # documents of a pattern, for each of its weight and each fold


def document_rows(lines: Sequence[Line], model: Model, name: str) -> list[tuple[list[float], str]]:
    by_class: dict[tuple[str, bool], list[Line]] = defaultdict(list)
    for line in lines:
        by_class[line.of, line.chinese].append(line)
    rows = []
    for entry in (TEXTS / "documents.txt").read_text("utf-8").splitlines():
        if found := re.fullmatch(r"(comply|partial|full) (\d+): (.*)", entry):
            for pattern in found[3].split():
                for i in range(int(found[2]) * TIMES):
                    text = composed(pattern, by_class, Random(f"{name}/{found[1]}/{pattern}/{i}"))
                    rows.append((features(model.read(split(text)), text), found[1]))
    return rows


def composed(pattern: str, lines: Mapping[tuple[str, bool], Sequence[Line]], chance: Random) -> str:
    chinese = chance.random() < 0.15

    def one(of: str) -> str:
        return chance.choice(chance.choice(lines.get((of, chinese)) or lines[of, False]).variants)

    text = one("greet") + " " if chance.random() < GREETED else ""
    for part in re.findall(r"[A-Za-z]\??", pattern):
        if part.endswith("?") and chance.random() < 0.5:
            continue
        if part[0] in "LB":
            of, most = ("inform", 5) if part[0] == "L" else ("redirect", 4)
            mark = chance.choice(["{}. ", "- ", "* "])
            items = [mark.format(i + 1) + one(of) for i in range(chance.randint(2, most))]
            text = text.rstrip() + "\n\n" + "\n".join(items) + "\n\n"
        else:
            for _ in range(chance.choice([1, 1, 2, 3]) if part[0] == "I" else 1):
                text += one(LETTERS[part[0]]) + chance.choice(["\n\n", " ", " ", " "])
    return text.strip()


def document_model(rows: Sequence[tuple[Sequence[float], str]]) -> Document:
    x, y = np.array([row for row, _ in rows]), [KINDS.index(kind) for _, kind in rows]
    fitted = LogisticRegression(C=0.1, max_iter=2000, fit_intercept=False).fit(x, y)
    return [rounded(row, 3) for row in fitted.coef_]


if __name__ == "__main__":
    main()
