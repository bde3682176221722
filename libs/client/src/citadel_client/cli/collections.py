"""`citadel collections`: store points, and search them."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from citadel_client import RetryPolicy
from citadel_client.cli.files import opened
from citadel_client.cli.options import Json, Model, Timeout, Url, UsageError, connect, parse_json
from citadel_client.options import GROUP
from citadel_client.terminal import ProgressBar, print_json, print_table, say
from citadel_contracts.runs import Metric

app = typer.Typer(help="Collections of vectors: store, search.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="COLLECTION", help="Name of the collection.")]
FileArgument = Annotated[
    Path, typer.Argument(help="A text per line, or NDJSON of {id, text or embedding, payload}; `-`: standard input.")
]
GroupSize = Annotated[int, typer.Option("--group", min=1, max=1000, help="Points per request.")]
Text = Annotated[str | None, typer.Argument(help="Text to search for.")]
Vector = Annotated[str | None, typer.Option("--embedding", help="Vector to search for, as a JSON list.")]
HitLimit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="Maximum number of hits.")]
Filter = Annotated[str | None, typer.Option("--filter", help="JSON: payload keys and values, or a Qdrant filter.")]
Threshold = Annotated[
    float | None,
    typer.Option("--score-threshold", help="Score that hits are nearer than; euclid and manhattan: a distance."),
]
VectorName = Annotated[str | None, typer.Option("--vector-name", help="Which of a point's vectors.")]
Distance = Annotated[
    Metric | None, typer.Option("--distance", help="Metric of a collection that is created; default: cosine.")
]
SHOWN = 100


@app.command()
def store(  # noqa: PLR0913, PLR0917  (one per option of the command)
    name: Name,
    file: FileArgument,
    model: Model = None,
    vector_name: VectorName = None,
    distance: Distance = None,
    group: GroupSize = GROUP,
    url: Url = None,
    timeout: Timeout = 120.0,
    json_: Json = False,
) -> None:
    """Store texts, which the server embeds, or vectors; the collection is created if it does not exist.

    Memory does not grow with the file. Storing it again changes nothing.
    """
    with connect(url, timeout, RetryPolicy()) as citadel, opened(file) as lines, ProgressBar("storing", None) as bar:
        stored = citadel.collections.store(
            name,
            _points(lines),
            model=model,
            vector_name=vector_name,
            distance=distance,
            group=group,
            progress=bar.update,
        )
    if json_:
        print_json({"collection": name, "upserted": stored.upserted})
    else:
        say(f"{stored.upserted} points stored in {name}")


def _points(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield a point per line: NDJSON if the first line begins with a brace, else texts."""
    as_json = None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if as_json is None:
            as_json = line.lstrip().startswith("{")
        yield _point(number, line) if as_json else {"text": line.strip()}


def _point(number: int, line: str) -> dict[str, Any]:
    found = parse_json(line, f"line {number}")
    if not isinstance(found, dict):
        raise UsageError(f"line {number} is not a JSON object")
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
    vector_name: VectorName = None,
    url: Url = None,
    timeout: Timeout = 60.0,
    json_: Json = False,
) -> None:
    """Find the points nearest to a text or a vector."""
    if (text is None) == (embedding is None):
        raise UsageError("give either a text or --embedding")
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
            vector_name=vector_name,
        )
    if json_:
        print_json({"hits": [hit.model_dump() for hit in hits]})
        return
    rows = [(f"{hit.score:.4f}", hit.metric or "", hit.id, _short(hit.payload)) for hit in hits]
    print_table(("score", "metric", "id", "payload"), rows)


def _json(text: str, option: str, kind: type) -> Any:
    found = parse_json(text, option)
    if not isinstance(found, kind) or (isinstance(found, list) and not all(map(_is_number, found))):
        raise UsageError(f"{option} must be a JSON {'list of numbers' if kind is list else 'object'}")
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(payload: dict[str, Any] | None) -> str:
    text = orjson.dumps(payload).decode() if payload else ""
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
