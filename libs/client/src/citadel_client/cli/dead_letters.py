"""`citadel dead-letters`: list, show, requeue and drop what was put aside."""

import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import typer

from citadel_client import Citadel, DeadLetterFilters
from citadel_client.cli.exits import ExitCode, UsageError
from citadel_client.cli.options import Json, Timeout, Url, connect
from citadel_client.terminal import print_json, print_table, say
from citadel_contracts.api import DeadLetterFailure, DeadLetterView

app = typer.Typer(
    help="Dead letters: tasks and messages that were put aside. Needs a key with the scope admin.",
    no_args_is_help=True,
)
Id = Annotated[str, typer.Argument(metavar="ID", help="The dead letter's id, which is the task's.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids; or give filters, or --all.")]
Queue = Annotated[str | None, typer.Option("--queue", help="From this queue.")]
Task = Annotated[str | None, typer.Option("--task", help="Of this task.")]
Code = Annotated[str | None, typer.Option("--code", help="With this error code.")]
Error = Annotated[str | None, typer.Option("--error", help="With this in the error message.")]
Since = Annotated[datetime | None, typer.Option("--since", help="Put aside at or after this time (UTC).")]
Until = Annotated[datetime | None, typer.Option("--until", help="Put aside before this time (UTC).")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="Letters at most.")]
All = Annotated[bool, typer.Option("--all", help="Every dead letter there is.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


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
    if json_:
        print_json(found)
        return
    rows = [(entry.id, entry.queue, entry.task or "", entry.at[:19], entry.code, entry.error) for entry in found]
    print_table(("id", "queue", "task", "dead-lettered", "code", "error"), rows)


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
    """Have the tasks of dead letters run again, as they were; exits with 1 when some cannot be."""
    filters = _filters(queue, task, code, error, since, until)
    _check_means_some(ids, filters, all_)
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
    _check_means_some(ids, filters, all_)
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
    found: Any = {"queue": queue, "task": task, "code": code, "error": error, "since": _utc(since)}
    found["until"] = _utc(until)
    wanted: DeadLetterFilters = {name: value for name, value in found.items() if value is not None}  # type: ignore[assignment]
    return wanted


def _utc(at: datetime | None) -> datetime | None:
    return None if at is None else at.replace(tzinfo=at.tzinfo or UTC)


def _check_means_some(ids: list[str] | None, filters: DeadLetterFilters, all_: bool) -> None:
    if bool(ids) + bool(filters) + all_ != 1:
        raise UsageError("say which: ids, or filters (--queue, --task, --code, --error, --since, --until), or --all")


def _confirm(action: str, citadel: Citadel, ids: list[str] | None, filters: DeadLetterFilters, yes: bool) -> None:
    """Ask, where somebody can answer.

    Raises:
        UsageError: Nobody can.
        typer.Exit: The answer was no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"nobody can be asked here whether to {action}: add --yes")
    which = f"{len(ids)} dead letters" if ids else _described(citadel, filters)
    if not typer.confirm(f"{action} {which}?", err=True):
        raise typer.Exit(ExitCode.FAILED)


def _described(citadel: Citadel, filters: DeadLetterFilters) -> str:
    total = citadel.dead_letters.page(limit=1).total
    said = ", ".join(f"{name} {value}" for name, value in filters.items())
    return f"those of {total} dead letters with {said}" if said else f"all {total} dead letters"
