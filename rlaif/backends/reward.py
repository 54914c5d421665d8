"""A reward model: a sequence classifier with one output, which scores the last turn of a conversation."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

from jinja2 import TemplateError

from rlaif.backends.causal_lm import Row, Weights
from rlaif.backends.sampling import Body
from rlaif.types import Completion, Usage


class Scorer(Weights):
    """Answers each request with its score as text."""

    _opens_answer = False

    def answer(self, rows: Sequence[Row], closing: threading.Event) -> None:
        # Without a token for padding the model looks at the last place of each row, so that none can be padded.
        padding = self._model.config.get_text_config().pad_token_id
        for batch in [rows] if padding is not None else [[row] for row in rows]:
            if closing.is_set():
                return
            for row, score in zip(batch, self._scores(batch, padding or 0), strict=True):
                if not math.isfinite(score):
                    raise RuntimeError(f"the score is {score}; give it another dtype in engine:, like float32")
                row.answer(Completion(f"{score:.6g}", usage=Usage(len(row.prompt))))

    def _scores(self, rows: Sequence[Row], padding: int) -> list[float]:
        """Padded on the right: most such models count places from the left, padding or not."""
        import torch

        width = max(len(row.prompt) for row in rows)
        padded = [row.prompt + [padding] * (width - len(row.prompt)) for row in rows]
        mask = [[1] * len(row.prompt) + [0] * (width - len(row.prompt)) for row in rows]
        with torch.inference_mode():
            scored = self._model(
                input_ids=torch.tensor(padded, device=self._model.device),
                attention_mask=torch.tensor(mask, device=self._model.device),
            )
        scores: list[float] = scored.logits[:, 0].float().tolist()
        return scores

    def _rendered(self, messages: list[dict[str, str]], body: Body) -> list[int]:
        """Where the template has no system role, the system turn opens the first user turn."""
        try:
            return super()._rendered(messages, body)
        except (TemplateError, TypeError, ValueError):
            if messages[0]["role"] != "system":
                raise
            system, first, *others = messages
            return super()._rendered([first | {"content": f"{system['content']}\n\n{first['content']}"}, *others], body)
