"""`citadel dead-letters`: list, show, requeue and drop dead letters."""

import sys
from datetime import UTC, datetime
from typing import Annotated, Any, cast

import orjson
import typer

from citadel_client import Citadel, DeadLetterFilters
from citadel_client.cli.options import ExitCode, Json, Timeout, Url, UsageError, connect
from citadel_client.terminal import print_json, print_list, print_table, say
from citadel_contracts.api import DeadLetterFailure, DeadLetterSummary, DeadLetterView

app = typer.Typer(
    help="Dead letters: tasks and messages that the server gave up on. Needs a key with the scope admin.",
    no_args_is_help=True,
)
Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the dead letter, which is its task's.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids; or give filters or --all.")]
Queue = Annotated[str | None, typer.Option("--queue", help="Queue it came from.")]
Task = Annotated[str | None, typer.Option("--task", help="Name of its task.")]
Code = Annotated[str | None, typer.Option("--code", help="Error code.")]
Error = Annotated[str | None, typer.Option("--error", help="Part of the error message.")]
Since = Annotated[datetime | None, typer.Option("--since", help="Dead-lettered at or after this time (UTC).")]
Until = Annotated[datetime | None, typer.Option("--until", help="Dead-lettered before this time (UTC).")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number of dead letters.")]
All = Annotated[bool, typer.Option("--all", help="Every dead letter.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


@app.command("list")
def list_(  # noqa: PLR0913, PLR0917  (one per option of the command)
    queue: Queue = None,
    task: Task = None,
    code: Code = None,
    error: Error = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 20,
    url: Url = None,
    timeout: Timeout = 30.0,
    json_: Json = False,
) -> None:
    """List dead letters, newest first."""
    filters = _filters(queue, task, code, error, since, until)
    with connect(url, timeout) as citadel:
        found = list(citadel.dead_letters.list(limit=limit, **filters))
    print_list(found, json_, ("id", "queue", "task", "dead-lettered", "code", "error"), _row)


def _row(entry: DeadLetterSummary) -> tuple[str, ...]:
    return entry.id, entry.queue, entry.task or "", entry.at[:19], entry.code, entry.error


@app.command()
def show(dead_letter_id: Id, url: Url = None, timeout: Timeout = 30.0, json_: Json = False) -> None:
    """Show a dead letter with its arguments and attempts."""
    with connect(url, timeout) as citadel:
        found = citadel.dead_letters.get(dead_letter_id)
    if json_:
        print_json(found)
    else:
        _print(found)


def _print(found: DeadLetterView) -> None:
    facts: dict[str, Any] = {
        "task": found.task or "",
        "queue": found.queue,
        "dead-lettered": found.at,
        "code": found.code,
        "error": found.error,
        "deliveries": found.deliveries,
        "trace": found.trace_id or "",
        "arguments": orjson.dumps([found.args, found.kwargs]).decode() if found.requeueable else "",
        "message": found.raw or "",
    }
    rows = [(name, fact) for name, fact in facts.items() if fact != ""]
    print_table(("dead letter", found.id), rows)
    attempts = [tuple(attempt.get(name, "") for name in ("at", "worker", "code", "error")) for attempt in found.history]
    print_table(("at", "worker", "code", "error"), attempts, "attempts, oldest first")


@app.command()
def requeue(  # noqa: PLR0913, PLR0917  (one per option of the command)
    ids: Ids = None,
    queue: Queue = None,
    task: Task = None,
    code: Code = None,
    error: Error = None,
    since: Since = None,
    until: Until = None,
    all_: All = False,
    yes: Yes = False,
    url: Url = None,
    timeout: Timeout = 60.0,
    json_: Json = False,
) -> None:
    """Run the tasks of dead letters again, with their arguments; exits with 1 if some cannot be requeued."""
    filters = _filters(queue, task, code, error, since, until)
    _check_selection(ids, filters, all_)
    requeued: list[str] = []
    failed: list[DeadLetterFailure] = []
    with connect(url, timeout) as citadel:
        _confirm("requeue", citadel, ids, filters, yes)
        for done in citadel.dead_letters.requeue_all(ids or None, everything=all_, **filters):
            requeued += done.requeued
            failed += done.failed
    if json_:
        print_json({"requeued": requeued, "failed": failed})
    else:
        for failure in failed:
            say(failure.message)
        typer.echo(f"{len(requeued)} requeued, {len(failed)} not")
    if failed:
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def drop(  # noqa: PLR0913, PLR0917  (one per option of the command)
    ids: Ids = None,
    queue: Queue = None,
    task: Task = None,
    code: Code = None,
    error: Error = None,
    since: Since = None,
    until: Until = None,
    all_: All = False,
    yes: Yes = False,
    url: Url = None,
    timeout: Timeout = 60.0,
    json_: Json = False,
) -> None:
    """Remove dead letters for good."""
    filters = _filters(queue, task, code, error, since, until)
    _check_selection(ids, filters, all_)
    with connect(url, timeout) as citadel:
        _confirm("drop", citadel, ids, filters, yes)
        if ids:
            for dead_letter_id in ids:
                citadel.dead_letters.drop(dead_letter_id)
            dropped = len(ids)
        else:
            dropped = citadel.dead_letters.drop_all(everything=all_, **filters)
    if json_:
        print_json({"dropped": dropped})
    else:
        typer.echo(f"{dropped} dropped")


def _filters(
    queue: str | None,
    task: str | None,
    code: str | None,
    error: str | None,
    since: datetime | None,
    until: datetime | None,
) -> DeadLetterFilters:
    times = {"since": _utc(since), "until": _utc(until)}
    given: Any = {"queue": queue, "task": task, "code": code, "error": error, **times}
    found: Any = {name: value for name, value in given.items() if value is not None}
    return cast("DeadLetterFilters", found)


def _utc(at: datetime | None) -> datetime | None:
    return None if at is None else at.replace(tzinfo=at.tzinfo or UTC)


def _check_selection(ids: list[str] | None, filters: DeadLetterFilters, all_: bool) -> None:
    if bool(ids) + bool(filters) + all_ != 1:
        raise UsageError(
            "say which dead letters: ids, or filters (--queue, --task, --code, --error, --since, --until), or --all"
        )


def _confirm(action: str, citadel: Citadel, ids: list[str] | None, filters: DeadLetterFilters, yes: bool) -> None:
    """Ask the user for confirmation.

    Raises:
        UsageError: There is no terminal.
        typer.Exit: The answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"standard input is not a terminal, so {action} needs --yes")
    which = f"{len(ids)} dead letters" if ids else _described(citadel, filters)
    if not typer.confirm(f"{action} {which}?", err=True):
        raise typer.Exit(ExitCode.FAILED)


def _described(citadel: Citadel, filters: DeadLetterFilters) -> str:
    total = citadel.dead_letters.page(limit=1).total
    described = ", ".join(f"{name} {value}" for name, value in filters.items())
    return f"those of {total} dead letters with {described}" if described else f"all {total} dead letters"
