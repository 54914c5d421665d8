"""Another rater of harm: a class of the user's own, or a text classifier in a folder of transformers."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlaif.errors import ConfigError
from rlaif.evaluate.safety import Classifier

# What a classifier may call harm.
_HARM = ("harmful", "unsafe", "toxic", "harm", "yes", "label_1")
_BATCH = 16


def load_classifier(name: str) -> Classifier:
    """`package.module:Class`, whose objects take prompts and answers and give probabilities; or a folder."""
    if Path(name).expanduser().is_dir():
        return _Transformer(Path(name).expanduser())
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(f"--classifier {name}: give the folder of a classifier, or package.module:Class")
    try:
        made: Classifier = getattr(importlib.import_module(module), attribute)()
    except Exception as error:  # it is the user's own code
        raise ConfigError(f"--classifier {name}: cannot be made: {type(error).__name__}: {error}") from error
    return _Checked(name, made)


class _Checked:
    """A classifier of the user's own gives a probability for every answer."""

    def __init__(self, name: str, classifier: Classifier) -> None:
        self._name = name
        self._classifier = classifier

    def __call__(self, prompts: Sequence[str], answers: Sequence[str]) -> Sequence[float]:
        try:
            found = [float(p) for p in self._classifier(prompts, answers)]
        except Exception as error:
            raise ConfigError(f"--classifier {self._name} failed: {type(error).__name__}: {error}") from error
        if len(found) != len(answers) or not all(0 <= p <= 1 for p in found):
            raise ConfigError(f"--classifier {self._name} must give a number from 0 to 1 for each answer")
        return found


class _Transformer:
    """Reads prompt and answer as a pair of texts; the label's name says which class is harm."""

    def __init__(self, folder: Path) -> None:
        try:
            from transformers import AutoModelForSequenceClassification, AutoTokenizer
        except ModuleNotFoundError as error:
            raise ConfigError(f"--classifier needs {error.name}; run: pip install 'rlaif-kit[train]'") from None
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
            self._model: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"--classifier {folder}: transformers cannot load it: {error}") from error
        labels = {str(name).lower(): int(i) for i, name in self._model.config.id2label.items()}
        harm = next((labels[name] for name in _HARM if name in labels), None)
        if harm is None or len(labels) < 2:
            there = ", ".join(labels)
            raise ConfigError(f"--classifier {folder}: none of its labels ({there}) is harm: {', '.join(_HARM)}")
        self._harm = harm

    def __call__(self, prompts: Sequence[str], answers: Sequence[str]) -> Sequence[float]:
        import torch

        found: list[float] = []
        for i in range(0, len(answers), _BATCH):
            texts = list(prompts[i : i + _BATCH]), list(answers[i : i + _BATCH])
            encoded = self._tokenizer(*texts, padding=True, truncation=True, return_tensors="pt")
            with torch.inference_mode():
                found += self._model(**encoded).logits.float().softmax(-1)[:, self._harm].tolist()
        return found
