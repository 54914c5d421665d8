"""The job with bespokelabs-curator: one LLM block against an OpenAI endpoint, its limits lifted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))  # at the end: nothing of ours hides anything of theirs
import workload
from bespokelabs import curator
from datasets import Dataset


class Answer(curator.LLM):
    def prompt(self, row: dict) -> list[dict]:
        return workload.messages(row["prompt"])

    def parse(self, row: dict, response: str) -> dict:
        return {"prompt": row["prompt"], "response": response}


if __name__ == "__main__":
    given = workload.arguments(__doc__).parse_args()
    answer = Answer(
        model_name=workload.MODEL,
        backend="openai",
        generation_params={"temperature": workload.TEMPERATURE, "max_tokens": workload.MAX_TOKENS},
        backend_params={
            "base_url": given.url,
            "api_key": "none",
            "max_concurrent_requests": given.in_flight,
            "max_requests_per_minute": 10**8,
            "max_tokens_per_minute": 10**12,
        },
    )
    answered = answer(Dataset.from_list([{"prompt": workload.prompt(row)} for row in range(given.rows)]))
    rows = getattr(answered, "dataset", answered)
    rows.to_json(str(given.folder / "dataset.jsonl"))
    print(json.dumps(workload.checked(((row["prompt"], row["response"]) for row in rows), given.rows)))
