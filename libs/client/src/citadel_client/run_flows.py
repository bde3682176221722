"""What takes several calls: waiting for a run, validating, storing many points."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from citadel_client import run_calls
from citadel_client.decoders import BatchAnswer, EventDecoder, ResultDecoder
from citadel_client.errors import CallTimedOut, InvalidRequest, RunFailed
from citadel_client.feeds import Feed
from citadel_client.flow import Flow, Pause, Terms, exchange
from citadel_client.run_calls import Definition, Point, Validation
from citadel_contracts.api import FieldError
from citadel_contracts.runs import FINISHED, RunEvent, RunView, StoreResponse

FIRST_POLL_S = 0.03
LAST_POLL_S = 1.0
LEAST_S = 1.0
"""Seconds that one look may take, however little time there is."""
GROUP = 200
"""Points stored by one request."""
GROUP_BYTES = 768 * 1024
"""Bytes of points in one request: it is recorded as a run, and answered within a request's time."""
Points = Iterable[Point]


def ended(run_id: str, terms: Terms, timeout: float | None, *, check: bool) -> Flow[RunView]:
    """Look again and again until the run has ended.

    Raises:
        RunFailed: It did not succeed, and `check` asks for that.
        CallTimedOut: It has not ended in time.
    """
    deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
    pause = FIRST_POLL_S
    while True:
        left = max(LEAST_S, min(terms.timeout, deadline - time.monotonic()))
        seen = yield from exchange(run_calls.show(run_id, outputs=False), replace(terms, timeout=left))
        if seen.status in FINISHED:
            break
        if time.monotonic() + pause >= deadline:
            raise CallTimedOut(f"run {run_id} is {seen.status} after {timeout:g} s; it goes on")
        yield Pause(seconds=pause)
        pause = min(pause * 1.5, LAST_POLL_S)
    view = yield from exchange(run_calls.show(run_id), terms)
    if check and view.status != "succeeded":
        raise RunFailed(view)
    return view


def validated(definition: Definition, terms: Terms) -> Flow[Validation]:
    """What is wrong with a definition."""
    try:
        plan = yield from exchange(run_calls.plan(definition), terms)
    except InvalidRequest as error:
        return Validation(problems=list(error.errors) or [FieldError(pointer="", detail=error.message)])
    return Validation(warnings=plan.warnings)


def stored(
    name: str, points: Points, model: str | None, group: int, progress: Callable[[int], None] | None, terms: Terms
) -> Flow[StoreResponse]:
    """Store any number of points, a group at a time."""
    upserted, ids = 0, list[str | int]()
    for found in _groups(points, group):
        reply = yield from exchange(run_calls.store(name, found, model), terms)
        upserted += reply.upserted
        ids += reply.ids
        if progress:
            progress(upserted)
    return StoreResponse(upserted=upserted, ids=ids)


def _groups(points: Points, size: int) -> Iterator[list[bytes]]:
    """Neighbours, as many as one request may carry."""
    found, length = list[bytes](), 0
    for point in points:
        body = run_calls.encoded_point(point)
        if found and (len(found) == size or length + len(body) > GROUP_BYTES):
            yield found
            found, length = [], 0
        found.append(body)
        length += len(body)
    if found:
        yield found


def events(run_id: str, after: int, timeout: float | None, terms: Terms) -> Feed[RunEvent]:
    """The events of a run, from the one after number `after`."""
    return Feed(f"{run_calls.path_of(run_id)}/events", EventDecoder(after), terms, timeout=timeout)


def results(run_id: str, after: int, timeout: float | None, terms: Terms) -> Feed[BatchAnswer]:
    """The results of a batch but the first `after`; nothing comes while a chunk is computed, so silence is no alarm."""
    path = f"{run_calls.path_of(run_id)}/results?encoding_format=base64"
    return Feed(path, ResultDecoder(after), terms, timeout=timeout, idle=terms.timeout)
