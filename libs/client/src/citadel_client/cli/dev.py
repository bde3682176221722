"""`citadel dev` and `citadel demo`."""

from pathlib import Path
from typing import Annotated

import typer

from citadel_client.cli.options import Json
from citadel_client.terminal import out, print_json, say

Home = Annotated[Path, typer.Option("--home", envvar="CITADEL_HOME", help="Directory of data, logs and state.")]
Port = Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="Port of the API; 0 takes a free one.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the output of the processes.")]
StartTimeout = Annotated[float, typer.Option("--start-timeout", min=1, help="Seconds until it must be ready.")]
DEFAULT_HOME = Path(".citadel")


def dev(
    home: Home = DEFAULT_HOME,
    port: Port = 8080,
    verbose: Verbose = False,
    start_timeout: StartTimeout = 180.0,
    json_: Json = False,
) -> None:
    """Run the whole server on this machine: Redis, PostgreSQL, the workers with the built-in model, and the API.

    Settings (CITADEL_*) of your shell apply: CITADEL_EMBEDDINGS__BACKENDS names your own backends. Data, logs and
    state are below --home. While the server is ready, the file `env` there has its addresses, for a shell to source.
    Ctrl-C stops the server, with exit code 0.
    """
    from citadel_client.dev.run import run

    def announce(env: dict[str, str]) -> None:
        if json_:
            print_json(env)
            return
        out.print(
            f"Citadel is ready at [bold]{env['CITADEL_API_URL']}[/bold] (API documentation: /docs)", highlight=False
        )
        out.print(f"Addresses for your shell:  set -a; . {home / 'env'}; set +a", highlight=False, markup=False)
        out.print("Ctrl-C stops it.", highlight=False)

    raise typer.Exit(run(home, port, start_timeout, announce, say, _show if verbose else None))


def _show(name: str, line: str) -> None:
    say(f"{name:>10} | {line}")


def demo(home: Home = DEFAULT_HOME, json_: Json = False, verbose: Verbose = False) -> None:
    """Embed Python's own documentation, store it in Qdrant, and answer questions from it by workflows.

    Uses the server at CITADEL_API_URL if that is set and answers; else it starts one below --home.
    """
    from citadel_client.demo.run import run

    run(home, json_=json_, show=_show if verbose else None)
