"""`citadel workflow`: run, plan, validate and draw the workflow in a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from citadel_client import WorkflowPlan
from citadel_client.cli.definitions import Source, load, settings
from citadel_client.cli.exits import ExitCode, UsageError
from citadel_client.cli.options import Json, Timeout, Url, connect
from citadel_client.cli.watching import conclude, follow
from citadel_client.errors import InvalidRequest
from citadel_client.models import PlannedStep
from citadel_client.terminal import print_json, print_table, say

app = typer.Typer(help="Workflows: run, plan, validate, draw.", no_args_is_help=True)
FileArgument = Annotated[Path, typer.Argument(help="Definition as YAML or JSON; `-`: standard input.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A value of the context; repeat for several.")
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the run to its end, or print its id.")]
WaitTimeout = Annotated[
    float | None, typer.Option("--wait-timeout", min=0.1, help="Seconds to follow the run; it goes on after that.")
]
Key = Annotated[str | None, typer.Option("--key", help="Idempotency key: the same one gives the same run.")]


@contextmanager
def _explained(source: Source) -> Iterator[None]:
    """What the server says is wrong becomes lines that name the file's.

    Raises:
        UsageError: The definition is wrong.
    """
    try:
        yield
    except InvalidRequest as error:
        if not error.errors:
            raise UsageError(f"{source.name}: {error.message}") from error
        raise UsageError("\n".join(source.explained(error.errors))) from error


@app.command()
def run(
    file: FileArgument,
    set_: Set = None,
    wait: Wait = True,
    wait_timeout: WaitTimeout = None,
    key: Key = None,
    url: Url = None,
    timeout: Timeout = 60.0,
    json_: Json = False,
) -> None:
    """Run a workflow and print its output; exits with 1 when the run does not succeed."""
    source, context = load(file), settings(set_ or ())
    with connect(url, timeout) as citadel:
        with _explained(source):
            found = citadel.workflows.submit(source.definition, context=context, idempotency_key=key)
        if wait:
            say(f"run {found.run_id}")
            conclude(follow(found, wait_timeout), json_=json_)
        elif json_:
            print_json({"run_id": found.run_id})
        else:
            typer.echo(found.run_id)


@app.command()
def plan(file: FileArgument, set_: Set = None, url: Url = None, timeout: Timeout = 30.0, json_: Json = False) -> None:
    """Show what a workflow would do, without running it."""
    found = _planned(file, set_, url, timeout)
    if json_:
        print_json(found)
        return
    level = {step_id: number for number, steps in enumerate(found.order, start=1) for step_id in steps}
    rows = [
        (level.get(step.step_id, ""), step.step_id, step.type, ", ".join(step.depends_on), _calls(step), _how(step))
        for step in found.steps
    ]
    print_table(("", "step", "type", "after", "calls", ""), rows)
    for warning in found.warnings:
        say(f"warning: {warning}")


def _planned(file: Path, set_: list[str] | None, url: str | None, timeout: float) -> WorkflowPlan:
    source, context = load(file), settings(set_ or ())
    with connect(url, timeout) as citadel, _explained(source):
        return citadel.workflows.plan(source.definition, context=context)


def _calls(step: PlannedStep) -> str:
    named = ((name.replace("_", " "), count) for name, count in step.calls.items() if name != "cached_texts")
    return ", ".join(f"{name}: {'?' if count is None else count}" for name, count in named if count != 0)


def _how(step: PlannedStep) -> str:
    items = f"for each of {'?' if step.items is None else step.items} items" if step.per_item else ""
    return ", ".join(filter(None, (items, "if its condition holds" if step.conditional else "")))


@app.command()
def validate(
    file: FileArgument, set_: Set = None, url: Url = None, timeout: Timeout = 30.0, json_: Json = False
) -> None:
    """Tell everything that is wrong with a workflow, with JSON pointers and lines; exits with 2 then."""
    source, context = load(file), settings(set_ or ())
    with connect(url, timeout) as citadel:
        found = citadel.workflows.validate(source.definition, context=context)
    if json_:
        problems = [problem.model_dump() | {"line": source.line(problem.pointer)} for problem in found.problems]
        print_json({"valid": found.ok, "problems": problems, "warnings": found.warnings})
    else:
        for line in source.explained(found.problems):
            typer.echo(line)
        for warning in found.warnings:
            say(f"warning: {warning}")
        if found.ok:
            typer.echo(f"{source.name}: valid")
    if not found.ok:
        raise typer.Exit(ExitCode.USAGE)


@app.command()
def graph(file: FileArgument, set_: Set = None, url: Url = None, timeout: Timeout = 30.0, json_: Json = False) -> None:
    """Draw a workflow as a Mermaid graph."""
    drawn = _planned(file, set_, url, timeout).graph
    if json_:
        print_json({"mermaid": drawn})
    else:
        typer.echo(drawn.rstrip())
