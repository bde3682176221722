"""`citadel dev` and `citadel demo`."""

from pathlib import Path
from typing import Annotated

import typer

from citadel_client.cli.options import Json
from citadel_client.terminal import out, print_json, say

Home = Annotated[Path, typer.Option("--home", envvar="CITADEL_HOME", help="Directory for data, logs and state.")]
Port = Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="Port of the API; 0: any free one.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show what the processes print.")]
StartTimeout = Annotated[float, typer.Option("--start-timeout", min=1, help="Seconds until it must serve.")]
DEFAULT_HOME = Path(".citadel")


def dev(
    home: Home = DEFAULT_HOME,
    port: Port = 8080,
    verbose: Verbose = False,
    start_timeout: StartTimeout = 180.0,
    json_: Json = False,
) -> None:
    """Run everything here: Redis, PostgreSQL, the workers with the built-in model, and the API.

    Settings (CITADEL_*) of your shell apply: name your own backends by CITADEL_EMBEDDINGS__BACKENDS. What it
    keeps is below --home; while it is ready, the file `env` there has its variables, to be sourced by a shell.
    Ctrl-C stops it, with exit code 0.
    """
    from citadel_client.dev.run import run

    def announce(env: dict[str, str]) -> None:
        if json_:
            print_json(env)
            return
        out.print(
            f"Citadel is ready at [bold]{env['CITADEL_API_URL']}[/bold] (API documentation: /docs)", highlight=False
        )
        out.print(f"Variables for your shell:  set -a; . {home / 'env'}; set +a", highlight=False, markup=False)
        out.print("Ctrl-C stops it.", highlight=False)

    raise typer.Exit(run(home, port, start_timeout, announce, say, _show if verbose else None))


def _show(name: str, line: str) -> None:
    say(f"{name:>10} | {line}")


def demo(home: Home = DEFAULT_HOME, json_: Json = False, verbose: Verbose = False) -> None:
    """Embed Python's own documentation, store it in Qdrant, and ask it questions by workflows.

    Takes the server of CITADEL_API_URL where that is set and answers; else it starts one below --home.
    """
    from citadel_client.demo.run import run

    run(home, json_=json_, show=_show if verbose else None)
