"""Outputs and contexts that are too large to stand in a response: their sizes, and their JSON piece by piece.

Nothing is parsed that need not be, so a value of any size is sent with a few megabytes of memory.
"""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import NamedTuple
from uuid import UUID

import orjson

from citadel_common.stores.postgres import Cursor
from citadel_orchestration.db import payloads
from citadel_orchestration.db.models import NO_ITEM
from citadel_orchestration.engine.scope import Reader, data_of

Read = Callable[[Callable[[Cursor], bytes]], Awaitable[bytes]]
CHUNK = 2**20
"""Bytes that are read at once."""
MOST_AT_ONCE = 500
"""Outputs that are read at once."""
NULL = b"null"


class StoredOutput(NamedTuple):
    """The stored JSON of a step's output, or of the run's where `step_id` is empty."""

    step_id: str
    item: int
    size: int


Piece = bytes | StoredOutput
"""A part of a JSON text: itself, or where it is stored."""


def size_of(pieces: Iterable[Piece]) -> int:
    """Return the bytes of a JSON text."""
    return sum(len(piece) if isinstance(piece, bytes) else piece.size for piece in pieces)


def run_output(cursor: Cursor, run_id: UUID) -> list[Piece]:
    """Return the output of a run."""
    size = payloads.run_output_size(cursor, run_id)
    return [NULL] if size is None else [StoredOutput("", NO_ITEM, size)]


def step_output(cursor: Cursor, run_id: UUID, step_id: str) -> list[Piece]:
    """Return the output of a step; that of a `for_each` is the list of its items' outputs."""
    [(_, _, total, _)] = payloads.states_and_sizes(cursor, run_id, [step_id])
    stored = dict(payloads.output_sizes(cursor, run_id, step_id))
    if total is None:
        return [StoredOutput(step_id, NO_ITEM, stored[NO_ITEM])] if NO_ITEM in stored else [NULL]
    outputs: list[Piece] = [
        StoredOutput(step_id, item, stored[item]) if item in stored else NULL for item in range(total)
    ]
    return _joined(b"[", ([output] for output in outputs), b"]")


def final_context(reader: Reader, run_id: UUID) -> list[Piece]:
    """Return the context that a run leaves, as `scope.context_of` does; only its own context and `data` are parsed."""
    members: dict[str, list[Piece]] = {
        name: [orjson.dumps(value)] for name, value in reader.submitted_context(run_id).items()
    }
    for step_id, _, has_data in payloads.succeeded_steps(reader.cursor, run_id):
        members[step_id] = step_output(reader.cursor, run_id, step_id)
        if has_data:
            members |= {name: [orjson.dumps(value)] for name, value in data_of(reader, run_id, step_id).items()}
    return _joined(b"{", ([orjson.dumps(name) + b":", *value] for name, value in members.items()), b"}")


def _joined(begin: bytes, members: Iterable[list[Piece]], end: bytes) -> list[Piece]:
    pieces: list[Piece] = [begin]
    for number, member in enumerate(members):
        pieces += [b",", *member] if number else member
    return [*pieces, end]


async def stream(read: Read, run_id: UUID, pieces: Iterable[Piece]) -> AsyncIterator[bytes]:
    """Yield a JSON text, whose stored parts are read when it is their turn.

    Raises:
        RuntimeError: A stored part has changed: the run was retried or removed.
    """
    for batch in _batches(pieces):
        for start in range(0, max(1, size_of(batch)), CHUNK):
            yield await read(functools.partial(_part, run_id=run_id, batch=batch, start=start))


def _batches(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Yield values that are read together; one that is larger than `CHUNK` comes alone."""
    batch: list[Piece] = []
    whole = 0
    for piece in pieces:
        size = size_of([piece])
        if batch and (len(batch) >= MOST_AT_ONCE or whole + size > CHUNK):
            yield batch
            batch, whole = [], 0
        batch.append(piece)
        whole += size
    if batch:
        yield batch


def _part(cursor: Cursor, *, run_id: UUID, batch: list[Piece], start: int) -> bytes:
    """Return a whole batch, or the next part of one that is a single large value."""
    first = batch[0]
    if len(batch) == 1 and isinstance(first, bytes):
        return first[start : start + CHUNK]
    if len(batch) == 1 and isinstance(first, StoredOutput):
        body = payloads.chunk_of(cursor, run_id, first.step_id, first.item, start, CHUNK)
        return _expected(body, min(CHUNK, first.size - start))
    wanted = [(piece.step_id, piece.item) for piece in batch if isinstance(piece, StoredOutput)]
    stored = payloads.bodies_of(cursor, run_id, wanted) if wanted else {}
    return b"".join(
        piece if isinstance(piece, bytes) else _expected(stored.get((piece.step_id, piece.item), b""), piece.size)
        for piece in batch
    )


def _expected(body: bytes, size: int) -> bytes:
    if len(body) != size:
        raise RuntimeError("the output has changed while it was sent")
    return body
