"""`citadel collections`: store texts or vectors, and search them."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from citadel_client import RetryPolicy
from citadel_client.cli.exits import UsageError
from citadel_client.cli.inputs import opened
from citadel_client.cli.options import Json, Model, Timeout, Url, connect
from citadel_client.options import GROUP
from citadel_client.terminal import print_json, print_table, progress, say

app = typer.Typer(help="Collections of vectors: store, search.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="COLLECTION", help="The collection.")]
FileArgument = Annotated[
    Path, typer.Argument(help="A text per line, or NDJSON of {id, text or embedding, payload}; `-`: standard input.")
]
GroupSize = Annotated[int, typer.Option("--group", min=1, max=1000, help="Points per request.")]
Text = Annotated[str | None, typer.Argument(help="What to look for.")]
Vector = Annotated[str | None, typer.Option("--embedding", help="A vector to look for, as a JSON list.")]
HitLimit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="Hits at most.")]
Filter = Annotated[str | None, typer.Option("--filter", help="JSON: payload keys and their values, or Qdrant's.")]
Threshold = Annotated[float | None, typer.Option("--score-threshold", help="Score that a hit reaches at least.")]
SHOWN = 100


@app.command()
def store(
    name: Name,
    file: FileArgument,
    model: Model = None,
    group: GroupSize = GROUP,
    url: Url = None,
    timeout: Timeout = 120.0,
    json_: Json = False,
) -> None:
    """Store texts, which are embedded, or vectors; the collection is created where it is missing.

    Memory does not grow with the file; to store it again changes nothing.
    """
    with connect(url, timeout, RetryPolicy()) as citadel, opened(file) as lines, progress("storing", None) as bar:
        upserted = citadel.collections.store(name, _points(lines), model=model, group=group, progress=bar.at).upserted
    if json_:
        print_json({"collection": name, "upserted": upserted})
    else:
        say(f"{upserted} points stored in {name}")


def _points(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """A point per line; the first one tells whether the file is NDJSON."""
    as_json = None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if as_json is None:
            as_json = line.lstrip().startswith("{")
        yield _point(number, line) if as_json else {"text": line.strip()}


def _point(number: int, line: str) -> dict[str, Any]:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise UsageError(f"line {number} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"line {number} is no JSON object")
    return found


@app.command()
def search(  # noqa: PLR0913, PLR0917  (one per option of the command)
    name: Name,
    text: Text = None,
    embedding: Vector = None,
    model: Model = None,
    limit: HitLimit = 10,
    filter_: Filter = None,
    score_threshold: Threshold = None,
    url: Url = None,
    timeout: Timeout = 60.0,
    json_: Json = False,
) -> None:
    """Find the points nearest to a text or a vector."""
    if (text is None) == (embedding is None):
        raise UsageError("give a text, or a vector by --embedding")
    vector = None if embedding is None else _json(embedding, "--embedding", list)
    conditions = None if filter_ is None else _json(filter_, "--filter", dict)
    with connect(url, timeout) as citadel:
        hits = citadel.collections.search(
            name,
            text=text,
            embedding=vector,
            model=model,
            limit=limit,
            filter=conditions,
            score_threshold=score_threshold,
        )
    if json_:
        print_json({"hits": [hit.model_dump() for hit in hits]})
        return
    print_table(("score", "id", "payload"), [(f"{hit.score:.4f}", hit.id, _short(hit.payload)) for hit in hits])


def _json(text: str, option: str, kind: type) -> Any:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UsageError(f"{option} is not JSON: {error}") from error
    if not isinstance(found, kind) or (isinstance(found, list) and not all(map(_is_number, found))):
        raise UsageError(f"{option} must be a JSON {'list of numbers' if kind is list else 'object'}")
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(payload: dict[str, Any] | None) -> str:
    text = orjson.dumps(payload).decode() if payload else ""
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
