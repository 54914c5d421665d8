"""`rlaif serve`: a model of yours behind OpenAI's API, until Ctrl-C."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def serve(
    model: Annotated[
        str, typer.Argument(help="A folder of weights or an adapter, FILE.gguf, OWNER/NAME, or 'local'.")
    ] = "local",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Where it listens; 0.0.0.0 is everywhere.")] = "127.0.0.1",
    engine: Annotated[
        Literal["auto", "vllm", "llama", "transformers"],
        typer.Option(help="What computes. [auto: what fits the model and the machine]"),
    ] = "auto",
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="The variable with the key that askers must send. [none]")
    ] = None,
    context: Annotated[int, typer.Option(min=256, help="Tokens of one request, prompt and answer.")] = 4096,
    slots: Annotated[int, typer.Option(min=1, help="Requests computed together; vLLM has its own number.")] = 8,
    q8: Annotated[bool, typer.Option("--q8", help="A folder in 8 bits for llama.cpp: faster, less exact.")] = False,
) -> None:
    """Serve a model with OpenAI's chat completions until Ctrl-C: vLLM on a GPU, llama.cpp or transformers on a CPU."""
    import os
    import shutil
    import signal
    import tempfile

    from rlaif.cli.text import harmless
    from rlaif.errors import ConfigError, RlaifError
    from rlaif.serving.choice import choice
    from rlaif.serving.process import Place, served

    key = os.environ.get(api_key_env, "").strip() if api_key_env else None
    if api_key_env and not key:
        raise ConfigError(f"--api-key-env names {api_key_env}, which is not set: set it to the key")
    place = Place(host, port, key, context, slots)
    chosen = choice(model, engine, "Q8_0" if q8 else "F16")
    if place.open_to_all:
        typer.echo(f"warning: anyone who reaches {host} can ask it; give a key with --api-key-env", err=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an orderly end for both
    folder = Path(tempfile.mkdtemp(prefix="rlaif-serve-"))
    try:
        typer.echo(f"loading {harmless(chosen.name)} into {chosen.engine}, its log: {folder}/serve.log", err=True)
        with served(chosen, place, folder) as server:
            typer.echo(
                f"{harmless(chosen.name)} is at {server.url}; ask it with: {harmless(server.options(api_key_env))}"
            )
            code = server.process.wait()
        raise RlaifError(f"the server ended by itself (exit code {code}); its log: {server.log}")
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        typer.echo("stopped", err=True)
