"""`citadel workflow`: run, plan, validate and draw the workflow in a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from citadel_client import WorkflowPlan
from citadel_client.cli.definitions import Source, load, settings
from citadel_client.cli.options import ExitCode, Json, Timeout, Url, UsageError, connect
from citadel_client.cli.watching import follow, print_result
from citadel_client.errors import InvalidRequest
from citadel_client.models import PlannedStep
from citadel_client.terminal import print_json, print_table, say

app = typer.Typer(help="Workflows: run, plan, validate, draw.", no_args_is_help=True)
FileArgument = Annotated[Path, typer.Argument(help="Definition as YAML or JSON; `-`: standard input.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Value in the context; repeat for several.")
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the run to its end, or only print its id.")]
WaitTimeout = Annotated[
    float | None, typer.Option("--wait-timeout", min=0.1, help="Seconds to follow the run, which goes on after that.")
]
Key = Annotated[str | None, typer.Option("--key", help="Idempotency key: the same key gives the same run.")]


@contextmanager
def _problems_with_lines(source: Source) -> Iterator[None]:
    """Turn problems that the server finds into messages with the file's lines.

    Raises:
        UsageError: The definition is not valid.
    """
    try:
        yield
    except InvalidRequest as error:
        if not error.errors:
            raise UsageError(f"{source.name}: {error.message}") from error
        raise UsageError("\n".join(source.messages(error.errors))) from error


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
    """Run a workflow and print its output; exits with 1 if the run does not succeed."""
    source, context = load(file), settings(set_ or ())
    with connect(url, timeout) as citadel:
        with _problems_with_lines(source):
            found = citadel.workflows.submit(source.definition, context=context, idempotency_key=key)
        if wait:
            say(f"run {found.run_id}")
            print_result(follow(found, wait_timeout), json_=json_)
        elif json_:
            print_json({"run_id": found.run_id})
        else:
            typer.echo(found.run_id)


@app.command()
def plan(file: FileArgument, set_: Set = None, url: Url = None, timeout: Timeout = 30.0, json_: Json = False) -> None:
    """Show the steps and calls of a workflow, without running it."""
    found = _planned(file, set_, url, timeout)
    if json_:
        print_json(found)
        return
    level = {step_id: number for number, steps in enumerate(found.order, start=1) for step_id in steps}
    rows = [(level.get(step.step_id, ""), *_row(step)) for step in found.steps]
    print_table(("", "step", "type", "after", "calls", ""), rows)
    for warning in found.warnings:
        say(f"warning: {warning}")


def _planned(file: Path, set_: list[str] | None, url: str | None, timeout: float) -> WorkflowPlan:
    source, context = load(file), settings(set_ or ())
    with connect(url, timeout) as citadel, _problems_with_lines(source):
        return citadel.workflows.plan(source.definition, context=context)


def _row(step: PlannedStep) -> tuple[str, ...]:
    remarks = "\n".join(filter(None, (_conditions(step), *_limits(step))))
    return step.step_id, step.type, ", ".join(step.depends_on), _calls(step), remarks


def _limits(step: PlannedStep) -> list[str]:
    """Return the time limits of a step, one a line: a table of 80 columns has no room for more columns."""
    limits = {"start": step.start_timeout, "timeout": step.timeout}
    return [f"{name}: {limit:g} s" for name, limit in limits.items() if limit is not None]


def _calls(step: PlannedStep) -> str:
    named = ((name.replace("_", " "), count) for name, count in step.calls.items() if name != "cached_texts")
    return ", ".join(f"{name}: {'?' if count is None else count}" for name, count in named if count != 0)


def _conditions(step: PlannedStep) -> str:
    items = f"for each of {'?' if step.items is None else step.items} items" if step.per_item else ""
    return ", ".join(filter(None, (items, "if its condition holds" if step.conditional else "")))


@app.command()
def validate(
    file: FileArgument, set_: Set = None, url: Url = None, timeout: Timeout = 30.0, json_: Json = False
) -> None:
    """Print every problem of a workflow with JSON pointer and line; exits with 2 if there are any."""
    source, context = load(file), settings(set_ or ())
    with connect(url, timeout) as citadel:
        found = citadel.workflows.validate(source.definition, context=context)
    if json_:
        problems = [problem.model_dump() | {"line": source.line(problem.pointer)} for problem in found.problems]
        print_json({"valid": found.ok, "problems": problems, "warnings": found.warnings})
    else:
        for line in source.messages(found.problems):
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
