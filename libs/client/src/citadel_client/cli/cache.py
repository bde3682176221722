"""`citadel cache`: statistics, and warming."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from citadel_client import RetryPolicy
from citadel_client.chunks import cut
from citadel_client.cli.files import opened, texts_of
from citadel_client.cli.options import ChunkSize, ExitCode, Json, Timeout, Url, connect
from citadel_client.terminal import ProgressBar, print_json, print_table

app = typer.Typer(help="The embedding cache: statistics, warming.", no_args_is_help=True)
MIB = 2**20
Models = Annotated[
    list[str] | None, typer.Option("--model", "-m", help="Model; repeat for several.", show_default="all")
]
FileArgument = Annotated[Path, typer.Argument(help="A text per line; `-`: standard input.")]


@app.command()
def stats(url: Url = None, timeout: Timeout = 30.0, json_: Json = False) -> None:
    """Show hits, misses, errors and sizes."""
    with connect(url, timeout) as citadel:
        found = citadel.cache()
    if json_:
        print_json(found)
        return
    limit = f" of {found.memory_limit_bytes / MIB:.0f} MiB" if found.memory_limit_bytes else ""
    rows = [
        ("available", "yes" if found.available else "no"),
        ("entries", found.entries),
        ("hits", f"{found.hits} ({found.hit_rate:.1%})"),
        ("misses", found.misses),
        ("errors", found.errors),
        ("memory", f"{found.memory_bytes / MIB:.1f} MiB{limit}"),
        ("evicted", found.evicted),
    ]
    print_table(("cache", ""), rows)


@app.command()
def warm(
    file: FileArgument,
    model: Models = None,
    chunk_size: ChunkSize = 500,
    url: Url = None,
    timeout: Timeout = 600.0,
    json_: Json = False,
) -> None:
    """Embed each line of a file into the cache, by tasks, and wait for them."""
    counts: Counter[str] = Counter()
    with connect(url, timeout, RetryPolicy()) as citadel, opened(file) as lines, ProgressBar("warming", None) as bar:
        done = 0
        for chunk in cut(texts_of(lines), chunk_size):
            result = citadel.warm(chunk.texts, model).wait(timeout)
            counts.update(result.model_dump())
            done += len(chunk.texts)
            bar.update(done)
    found = {name: counts[name] for name in ("warmed", "skipped", "errors")}
    if json_:
        print_json(found)
    else:
        print_table(found, [found.values()])
    if found["errors"]:
        raise typer.Exit(ExitCode.FAILED)
