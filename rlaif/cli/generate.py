"""`rlaif generate`, `retry`, `export`: make a run, mend it, project it again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rlaif.cli.options import RunsDir

if TYPE_CHECKING:
    from rlaif.job import Job, Observer, Result

Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, like sample.n=2. Repeatable.")
]
AllowCode = Annotated[bool, typer.Option(help="Let the pipeline file import stages as package.module:Class.")]
MaxCost = Annotated[
    float | None, typer.Option(metavar="USD", help="Stop before the run has cost more, all its invocations together.")
]
MaxCalls = Annotated[
    int | None, typer.Option(metavar="N", help="Stop before the run has sent more, all its invocations together.")
]
MaxTime = Annotated[str | None, typer.Option(metavar="TIME", help="Stop sending after so long, like 2h, 90m or 600s.")]
ExecutorOption = Annotated[
    Literal["local", "ray"], typer.Option(help="Where parts are made: in this process, or by workers on Ray (ray.*).")
]
MetricsPort = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Serve Prometheus metrics at 127.0.0.1:PORT while it runs; 0: any.")
]
Batch = Annotated[
    bool, typer.Option("--batch", help="Ask OpenAI's and Anthropic's models by their batch APIs: half the price.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print summary.json to standard output instead.")]


def generate(
    pipeline: Annotated[str, typer.Argument(help="Bundled pipeline or a YAML file.")] = "cai",
    constitution: Annotated[str | None, typer.Option(help="Bundled constitution or a YAML file.")] = None,
    prompts: Annotated[str | None, typer.Option(help="Bundled set; JSONL, CSV or Parquet file; hf://DATASET.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many prompts. [local model: 16]")] = None,
    policy: Annotated[str | None, typer.Option(help="Model that answers and revises: provider/model.")] = None,
    judge: Annotated[str | None, typer.Option(help="Model that judges.")] = None,
    run: Annotated[str | None, typer.Option(help="Name of the run. [pipeline and date]")] = None,
    runs_dir: RunsDir = Path("runs"),
    seed: Annotated[int | None, typer.Option(help="Two seeds give two different sets of samples. [0]")] = None,
    assignments: Assignments = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, foresee calls, tokens and cost; send nothing.")
    ] = False,
    estimate: Annotated[
        int | None, typer.Option(metavar="N", help="Go through N records only, then say what the others will take.")
    ] = None,
    max_cost: MaxCost = None,
    max_calls: MaxCalls = None,
    max_time: MaxTime = None,
    batch: Batch = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make finished parts anew, from the journal.")] = False,
    audit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="First ask the judge about pairs that people labelled.")
    ] = None,
    audit_columns: Annotated[
        str | None, typer.Option(metavar="ROLE=NAME,...", help="Which column of them is what. [prompt, a, b, label]")
    ] = None,
    min_kappa: Annotated[
        float | None, typer.Option(metavar="KAPPA", help="Stop if the judge agrees less than this with people.")
    ] = None,
    allow_code: AllowCode = False,
    executor: ExecutorOption = "local",
    metrics_port: MetricsPort = None,
    as_json: AsJson = False,
) -> None:
    """Turn a constitution and prompts into a preference dataset.

    Models: local, local/FILE.gguf, openai/MODEL, anthropic/MODEL, http://HOST:PORT/v1#MODEL, vllm/MODEL,
    transformers/MODEL, scripted.
    Run the same command again after any interruption: nothing that was answered is asked twice.
    Exit codes: 0 done, 1 some records failed, a judge below --min-kappa, or an error, 2 bad usage or settings,
    3 stopped by a limit (--max-cost, --max-calls, --max-time), 130 interrupted.
    """
    from rlaif import api

    result = api.generate(
        pipeline,
        constitution=constitution,
        prompts=prompts,
        limit=limit,
        policy=policy,
        judge=judge,
        run=run,
        runs_dir=runs_dir,
        seed=seed,
        set=assignments or (),
        dry_run=dry_run,
        estimate=estimate,
        max_cost=max_cost,
        max_calls=max_calls,
        max_time=max_time,
        batch=batch,
        rebuild=rebuild,
        audit=audit,
        audit_columns=mapping("audit-columns", audit_columns),
        min_kappa=min_kappa,
        allow_code=allow_code,
        executor=executor,
        observer=observer(as_json, metrics_port),
    )
    end(result, as_json)


def retry(
    run: Annotated[str, typer.Argument(help="Name of the run.")],
    runs_dir: RunsDir = Path("runs"),
    max_cost: MaxCost = None,
    max_calls: MaxCalls = None,
    max_time: MaxTime = None,
    allow_code: AllowCode = False,
    executor: ExecutorOption = "local",
    metrics_port: MetricsPort = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a run, and ask again for what failed in it; what was answered is not asked again."""
    from rlaif import api

    result = api.retry(
        run,
        runs_dir=runs_dir,
        max_cost=max_cost,
        max_calls=max_calls,
        max_time=max_time,
        allow_code=allow_code,
        executor=executor,
        observer=observer(as_json, metrics_port),
    )
    end(result, as_json)


def export(
    run: Annotated[str, typer.Argument(help="Name of the run.")],
    runs_dir: RunsDir = Path("runs"),
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Make a run's datasets anew, with other pairing if you like; asks no model."""
    from rlaif import api

    end(api.export(run, runs_dir=runs_dir, set=assignments or ()), as_json, asked=False)


def mapping(option: str, text: str | None) -> dict[str, str]:
    """NAME=VALUE,NAME=VALUE as a user types it for `--option`."""
    return dict(pair(option, one) for one in text.split(",")) if text else {}


def pair(option: str, text: str) -> tuple[str, str]:
    from rlaif.errors import ConfigError

    name, _, value = text.rpartition("=")
    if not name or not value:
        raise ConfigError(f"--{option} {text}: write NAME=VALUE")
    return name.strip(), value.strip()


def observer(as_json: bool, metrics_port: int | None = None) -> Observer:
    from rlaif.cli.progress import live, plain

    @contextmanager
    def observe(job: Job) -> Iterator[None]:
        with ExitStack() as watching:
            if metrics_port is not None:
                from rlaif.metrics import metrics_server

                port = watching.enter_context(metrics_server(job, metrics_port))
                typer.echo(f"metrics at http://127.0.0.1:{port}/metrics", err=True)
            watching.enter_context(live(job) if sys.stderr.isatty() and not as_json else plain(job))
            yield

    return observe


def end(result: Result, as_json: bool, *, asked: bool = True) -> None:
    """Print how it ended and exit with the code that says so."""
    if as_json:
        import json

        typer.echo(json.dumps(result.summary, indent=2))
    else:
        from rlaif.cli.ending import show_ending

        show_ending(result, asked=asked)
    if result.status == "interrupted":
        raise SystemExit(130)  # and not typer's Exit: that code means there that Ctrl-C was not heard
    if result.status == "stopped":
        raise typer.Exit(3)
    if result.failed:
        raise typer.Exit(1)
