"""The job with distilabel: prompts into one TextGeneration step, the result saved to disk, its cache on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))  # at the end: nothing of ours hides anything of theirs
import workload
from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration

if __name__ == "__main__":
    given = workload.arguments(__doc__).parse_args()
    # A batch is what it has in flight: it sends one at a time.
    with Pipeline(name="bench", cache_dir=str(given.folder / "cache")) as pipeline:
        prompts = LoadDataFromDicts(
            data=[{"instruction": workload.prompt(row)} for row in range(given.rows)], batch_size=given.in_flight
        )
        answer = TextGeneration(
            llm=OpenAILLM(
                model=workload.MODEL,
                base_url=given.url,
                api_key="none",
                generation_kwargs={"temperature": workload.TEMPERATURE, "max_new_tokens": workload.MAX_TOKENS},
            ),
            system_prompt=workload.SYSTEM,
            input_batch_size=given.in_flight,
        )
        prompts >> answer
    made = pipeline.run(use_cache=True)
    made.save_to_disk(str(given.folder / "dataset"))
    rows = made["default"]["train"]
    print(json.dumps(workload.checked(((row["instruction"], row["generation"]) for row in rows), given.rows)))
