"""`citadel runs`: list, show, follow and command runs."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, get_args

import orjson
import typer

from citadel_client import Run
from citadel_client.cli.files import Out, Overwrite, check_free, opened_for_writing
from citadel_client.cli.options import (
    Encoding,
    EncodingOption,
    ExitCode,
    Json,
    Timeout,
    Url,
    UsageError,
    connect,
    parse_json,
)
from citadel_client.cli.watching import follow, outcome, print_result, say_run_continues
from citadel_client.cli.waterfall import bars, rows
from citadel_client.cli.workflow import WaitTimeout
from citadel_client.decoders import BatchAnswer
from citadel_client.terminal import print_json, print_list, print_table, say
from citadel_client.vectors import unpack_array
from citadel_contracts.runs import RunError, RunEvent, RunStatus, RunSummary, RunView

app = typer.Typer(help="Runs of workflows and batches: list, follow, cancel, retry.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(metavar="RUN_ID", help="Id of the run.")]
Status = Annotated[str | None, typer.Option("--status", help=f"One of {', '.join(get_args(RunStatus))}.")]
WorkflowId = Annotated[str | None, typer.Option("--workflow-id", help="Id of its workflow.")]
Kind = Annotated[str | None, typer.Option("--kind", help="workflow, batch or task.")]
Label = Annotated[list[str] | None, typer.Option("--label", metavar="NAME:VALUE", help="Label; repeat for several.")]
Since = Annotated[datetime | None, typer.Option("--since", help="Submitted at or after this time (UTC).")]
Until = Annotated[datetime | None, typer.Option("--until", help="Submitted before this time (UTC).")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number of runs.")]
After = Annotated[int, typer.Option("--after", min=0, help="Show the events after this number.")]
Trace = Annotated[bool, typer.Option("--trace", help="Show start and duration of each attempt of a step.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Follow the run until it ends.")]


@app.command("list")
def list_(  # noqa: PLR0913, PLR0917  (one per option of the command)
    status: Status = None,
    workflow_id: WorkflowId = None,
    kind: Kind = None,
    label: Label = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 20,
    url: Url = None,
    timeout: Timeout = 30.0,
    json_: Json = False,
) -> None:
    """List runs, newest first."""
    filters: Any = {
        "status": _status(status),
        "workflow_id": workflow_id,
        "kind": kind,
        "labels": dict(map(_label, label or ())),
        "since": since,
        "until": until,
    }
    with connect(url, timeout) as citadel:
        found = list(citadel.runs.list(limit=limit, **filters))
    print_list(found, json_, ("run", "workflow", "kind", "status", "submitted", "error"), _row)


def _row(run: RunSummary) -> tuple[str, ...]:
    return run.run_id, run.workflow_id, run.kind, run.status, _time(run.created_at), _message(run.error)


def _message(error: RunError | None) -> str:
    return error.message if error else ""


def _status(name: str | None) -> str | None:
    if name is not None and name not in get_args(RunStatus):
        raise UsageError(f"--status: unknown status {name!r}; use one of {', '.join(get_args(RunStatus))}")
    return name


def _label(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":")
    if not name or not separator:
        raise UsageError(f"--label takes name:value, not {text!r}")
    return name, value


def _time(at: datetime | None) -> str:
    return "" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


@app.command()
def show(run_id: Id, trace: Trace = False, url: Url = None, timeout: Timeout = 30.0, json_: Json = False) -> None:
    """Show a run with its steps; --json adds its output. --trace shows start and duration of each attempt of a step."""
    if trace:
        _show_waterfall(run_id, url, timeout, json_)
        return
    with connect(url, timeout) as citadel:
        found = citadel.runs.handle(run_id).show(outputs=json_)
    if json_:
        print_json(found)
    else:
        _print(found)


def _show_waterfall(run_id: str, url: str | None, timeout: float, json_: bool) -> None:
    with connect(url, timeout) as citadel:
        run = citadel.runs.handle(run_id)
        view, history = run.show(outputs=False), list(run.history())
    found = bars(view, history)
    if json_:
        print_json([vars(bar) for bar in found])
    else:
        print_table(("step", "outcome", "start", "time", ""), rows(view, found), outcome(view))


def _print(view: RunView) -> None:
    table = []
    for step in view.steps:
        items = f"{step.items.done}/{step.items.total}" if step.items else ""
        status = f"{step.status} ({step.waiting_for})" if step.waiting_for else step.status
        about = (step.step_id, step.type, status, step.attempt, items)
        table.append((*about, _time(step.finished_at), _message(step.error)))
    print_table(("step", "type", "status", "attempt", "items", "finished", "error"), table, outcome(view))
    if (line := view.waiting_for) is not None:
        typer.echo(f"waits for other runs of the concurrency key {line.concurrency_key}: place {line.position} in line")


@app.command()
def watch(
    run_id: Id, wait_timeout: WaitTimeout = None, url: Url = None, timeout: Timeout = 60.0, json_: Json = False
) -> None:
    """Follow a run to its end and print its output; Ctrl-C does not end the run."""
    with connect(url, timeout) as citadel:
        print_result(follow(citadel.runs.handle(run_id), wait_timeout), json_=json_)


def _command(run_id: str, url: str | None, timeout: float, json_: bool, command: Callable[[Run], RunStatus]) -> None:
    with connect(url, timeout) as citadel:
        status = command(citadel.runs.handle(run_id))
    if json_:
        print_json({"run_id": run_id, "status": status})
    else:
        typer.echo(status)


@app.command()
def cancel(run_id: Id, url: Url = None, timeout: Timeout = 30.0, json_: Json = False) -> None:
    """Cancel a run; its queued steps never start."""
    _command(run_id, url, timeout, json_, Run.cancel)


@app.command()
def pause(run_id: Id, url: Url = None, timeout: Timeout = 30.0, json_: Json = False) -> None:
    """Pause a run: no further step starts."""
    _command(run_id, url, timeout, json_, Run.pause)


@app.command()
def resume(run_id: Id, url: Url = None, timeout: Timeout = 30.0, json_: Json = False) -> None:
    """Resume a paused run."""
    _command(run_id, url, timeout, json_, Run.resume)


@app.command()
def retry(run_id: Id, url: Url = None, timeout: Timeout = 30.0, json_: Json = False) -> None:
    """Retry a run that did not succeed, from where it failed."""
    _command(run_id, url, timeout, json_, Run.retry)


Payload = Annotated[str, typer.Argument(help="JSON that is the output of the waiting step.")]


@app.command()
def signal(
    run_id: Id,
    name: Annotated[str, typer.Argument(help="Name of the signal.")],
    payload: Payload = "{}",
    url: Url = None,
    timeout: Timeout = 30.0,
    json_: Json = False,
) -> None:
    """Send a signal to a run's `wait` steps."""
    value = parse_json(payload, "the payload")
    _command(run_id, url, timeout, json_, lambda run: run.signal(name, value))


@app.command()
def events(
    run_id: Id,
    after: After = 0,
    follow_: Follow = False,
    url: Url = None,
    timeout: Timeout = 30.0,
    json_: Json = False,
) -> None:
    """Print a run's events so far, or until it ends with --follow; --json prints one document per line."""
    with connect(url, timeout) as citadel:
        run = citadel.runs.handle(run_id)
        for event in run.events(after=after) if follow_ else run.history(after=after):
            if json_:
                print_json(event)
            else:
                typer.echo(_event(event))


def _event(event: RunEvent) -> str:
    item = "" if event.item is None or event.item < 0 else f"[{event.item}]"
    data = {name: value for name, value in event.data.items() if value is not None}
    details = orjson.dumps(data).decode() if data else ""
    parts = (f"{event.seq:>5}", _time(event.at), event.type, f"{event.step_id or ''}{item}", details)
    return "  ".join(parts).rstrip()


@app.command()
def results(
    run_id: Id,
    out: Out = None,
    overwrite: Overwrite = False,
    encoding: EncodingOption = "float",
    url: Url = None,
    timeout: Timeout = 300.0,
    json_: Json = False,
) -> None:
    """Print a batch's results as NDJSON, in the order of its requests, as they come.

    Exits with 1 if requests failed. --json prints a summary (with --out).
    """
    if json_ and out is None:
        raise UsageError("--json prints a summary; it needs --out")
    check_free(out, overwrite)
    written = failed = 0
    with connect(url, timeout) as citadel, opened_for_writing(out) as file:
        try:
            for answer in citadel.runs.handle(run_id).results():
                file.write(_record(answer, encoding))
                written, failed = written + 1, failed + answer.failed
        except KeyboardInterrupt:
            say_run_continues(run_id)
            raise typer.Exit(ExitCode.INTERRUPTED) from None
    if json_:
        print_json({"run_id": run_id, "written": written, "failed": failed})
    elif out is not None:
        say(f"{written} written, {failed} failed")
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def _record(answer: BatchAnswer, encoding: Encoding) -> bytes:
    found = answer.embeddings
    vectors = [v if v is None or encoding == "base64" else unpack_array(v) for v in found.encoded]
    record: dict[str, Any] = {
        "index": answer.index,
        "request_id": answer.request_id,
        "model": found.model,
        "embeddings": vectors,
    }
    more = {"truncated": list(found.truncated), "errors": list(found.errors)}
    record |= {name: value for name, value in more.items() if value}
    return orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
