"""A job, from its settings to its dataset."""

from __future__ import annotations

from rlaif.job.ended import Result
from rlaif.job.run import Executor, run
from rlaif.job.under_way import Job, Observer, Status

__all__ = ["Executor", "Job", "Observer", "Result", "Status", "run"]
