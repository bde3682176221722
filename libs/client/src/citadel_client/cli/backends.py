"""`citadel backends`: what embedding and LLM servers do."""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from citadel_client.cli.options import ExitCode, Json, UsageError
from citadel_client.conformance.detection import Undetected
from citadel_client.conformance.findings import Finding, Report
from citadel_client.conformance.run import check as run_checks
from citadel_client.conformance.server import MOST_CALLS, NoAnswer, Server
from citadel_client.errors import ServerUnreachable
from citadel_client.terminal import print_json, print_table, say

app = typer.Typer(help="Look at embedding and LLM servers; needs no Citadel server.", no_args_is_help=True)

ServerUrl = Annotated[str, typer.Argument(help="Base URL of any embedding or LLM server.")]
Style = Annotated[Literal["openai", "ollama"] | None, typer.Option(help="Its protocol.", show_default="found out")]
Kind = Annotated[Literal["embedding", "llm"] | None, typer.Option(help="What it does.", show_default="found out")]
Model = Annotated[str | None, typer.Option("--model", "-m", help="Model to ask.", show_default="the only one listed")]
KeyFile = Annotated[Path | None, typer.Option(help="File with the API key.", exists=True, dir_okay=False)]
KeyEnv = Annotated[str | None, typer.Option(help="Variable with the API key.")]
KeyHeader = Annotated[str, typer.Option(help="Header that carries the key, as a bearer token if Authorization.")]
Name = Annotated[str, typer.Option(help="Name of the backend or endpoint in the settings.")]
LongWords = Annotated[int, typer.Option(min=0, max=200_000, help="Words of the text that is too long; 0: none.")]
CallTimeout = Annotated[float, typer.Option("--timeout", min=0.1, max=600, help="Seconds that one call may take.")]


@app.callback()
def backends() -> None:
    """Keep `check` a subcommand: Typer makes a group with one command into that command."""


@app.command()
def check(  # noqa: PLR0913, PLR0917  (options of a command)
    url: ServerUrl,
    kind: Kind = None,
    style: Style = None,
    model: Model = None,
    api_key_file: KeyFile = None,
    api_key_env: KeyEnv = None,
    api_key_header: KeyHeader = "Authorization",
    name: Name = "main",
    long_words: LongWords = 9000,
    timeout: CallTimeout = 60.0,
    json_: Json = False,
) -> None:
    """Show what a server does, and the settings that fit it; exits with 1 if Citadel cannot work with it.

    It is asked with short texts, in some 20 to 30 calls, at most 80, 8 of them at once; only the texts that are too
    long are costly (about three times 9,000 tokens, see --long-words). --json lists every call.
    """
    try:
        server = Server(url, key=_key(api_key_file, api_key_env, api_key_header), timeout=timeout)
    except ValueError as error:
        raise UsageError(f"the URL {error}") from None
    say(f"{server.shown} is asked, with at most {MOST_CALLS} calls")
    try:
        report = run_checks(
            server, style=style, kind=kind, model=model, long_words=long_words, name=name, progress=_progress(json_)
        )
    except NoAnswer as error:
        raise ServerUnreachable(str(error)) from None
    except Undetected as error:
        raise UsageError(str(error)) from None
    finally:
        server.close()
    if json_:
        print_json(asdict(report) | {"fits": report.fits})
    else:
        _print(report)
    raise typer.Exit(ExitCode.OK if report.fits else ExitCode.FAILED)


def _key(file: Path | None, variable: str | None, header: str) -> tuple[str, str] | None:
    if file is None and variable is None:
        return None
    key = file.read_text(encoding="utf-8").strip() if file else os.environ.get(variable or "", "")
    if not (key and key.isascii() and key.isprintable()):
        raise UsageError(f"there is no usable key in {file or variable}")
    return (header, f"Bearer {key}") if header.lower() == "authorization" else (header, key)


def _progress(json_: bool) -> Callable[[Finding], None]:
    return (lambda finding: say(f"  {finding.check}: {finding.result}")) if json_ else (lambda _: None)


def _print(report: Report) -> None:
    rows = ((found.check, found.result, found.grade, found.detail) for found in report.findings)
    took = sum(call.milliseconds for call in report.calls) / 1000
    title = f"{report.url}: {report.kind} server, {report.style} style, model {report.model}"
    print_table(("check", "result", "", "detail"), rows, title)
    say(f"{len(report.calls)} calls, {took:.1f} s")
    typer.echo("\n".join(report.settings))
