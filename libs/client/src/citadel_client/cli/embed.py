"""`citadel embed`: embed a few texts."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from citadel_client.cli.files import opened, texts_of
from citadel_client.cli.options import (
    Dimensions,
    InputType,
    Json,
    Model,
    NoCache,
    Timeout,
    Url,
    UsageError,
    connect,
    embed_options,
)
from citadel_client.terminal import print_json, print_table
from citadel_client.vectors import Embeddings

SHOWN = 4
PREVIEW = 60
TextArgs = Annotated[
    list[str] | None, typer.Argument(metavar="TEXT", help="Texts; default: the lines of standard input.")
]
FileOption = Annotated[
    Path | None, typer.Option("--file", "-f", help="Embed each line of this file; `-`: standard input.")
]
Ndjson = Annotated[bool, typer.Option("--ndjson", help="Print one JSON document per text.")]


def embed(  # noqa: PLR0913, PLR0917  (one per option of the command)
    texts: TextArgs = None,
    file: FileOption = None,
    model: Model = None,
    dimensions: Dimensions = None,
    input_type: InputType = None,
    no_cache: NoCache = False,
    url: Url = None,
    timeout: Timeout = 120.0,
    json_: Json = False,
    ndjson: Ndjson = False,
) -> None:
    """Embed texts in one request; use `citadel batch` for files of many texts."""
    wanted = _texts(texts, file)
    with connect(url, timeout) as citadel:
        found = citadel.embed(wanted, **embed_options(model, dimensions, input_type, no_cache))
    if ndjson:
        for index, vector in enumerate(found.array):
            print_json({"index": index, "text": wanted[index], "embedding": vector})
    elif json_:
        print_json(_document(found))
    else:
        _print(wanted, found)


def _texts(texts: list[str] | None, file: Path | None) -> list[str]:
    if texts and file:
        raise UsageError("give texts or --file, not both")
    if not texts and file is None and (sys.stdin is None or sys.stdin.isatty()):
        raise UsageError("no texts: give them as arguments, by --file, or on standard input")
    if texts:
        return texts
    with opened(file) as lines:
        found = list(texts_of(lines))
    if not found:
        raise UsageError("no texts: the input is empty")
    return found


def _document(found: Embeddings) -> dict[str, object]:
    return {
        "model": found.model,
        "dimensions": found.array.shape[1],
        "cache_hits": found.cache_hits,
        "truncated": list(found.truncated),
        "tokens": found.tokens,
        "embeddings": found.array,
    }


def _print(texts: list[str], found: Embeddings) -> None:
    rows = [
        (index, text if len(text) <= PREVIEW else text[: PREVIEW - 1] + "…", len(vector), _first_numbers(vector))
        for index, (text, vector) in enumerate(zip(texts, found.vectors, strict=True))
    ]
    title = f"{found.model}: {len(found)} texts, {found.cache_hits or 0} from the cache"
    print_table(("", "text", "dimensions", "vector"), rows, title)


def _first_numbers(vector: list[float]) -> str:
    return " ".join(f"{number:+.4f}" for number in vector[:SHOWN]) + (" …" if len(vector) > SHOWN else "")
