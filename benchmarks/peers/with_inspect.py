"""The job with inspect-ai: a task of one generate() a sample, run as an eval set, which resumes from its logs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))  # at the end: nothing of ours hides anything of theirs
import workload
from inspect_ai import Task, eval_set, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import read_eval_log
from inspect_ai.solver import generate, system_message


@task
def answers(rows: int) -> Task:
    samples = [Sample(id=row + 1, input=workload.prompt(row)) for row in range(rows)]
    return Task(dataset=MemoryDataset(samples), solver=[system_message(workload.SYSTEM), generate()])


if __name__ == "__main__":
    given = workload.arguments(__doc__).parse_args()
    _, logs = eval_set(
        answers(given.rows),
        model=f"openai-api/mock/{workload.MODEL}",
        model_base_url=given.url,
        log_dir=str(given.folder / "logs"),
        max_connections=given.in_flight,
        max_samples=given.in_flight,
        temperature=workload.TEMPERATURE,
        max_tokens=workload.MAX_TOKENS,
        fail_on_error=False,
        retry_attempts=2,
        retry_wait=1,
        display="none",
        log_level="error",
    )
    samples = [sample for log in logs for sample in read_eval_log(log.location).samples or ()]
    replies = ((s.input, s.output.completion if s.output and s.output.choices else None) for s in samples)
    print(json.dumps(workload.checked(replies, given.rows)))
