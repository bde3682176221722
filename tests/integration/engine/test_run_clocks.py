"""Runs whose workers are on hosts with wrong clocks: their deadlines are PostgreSQL's and the broker's."""

import time
from contextlib import ExitStack

import pytest

from citadel_common.errors import LlmUnavailable
from citadel_orchestration.db.models import StepRef
from tests.support.host_clock import HOUR, HostClock

ASK = {"step_id": "ask", "type": "llm_query", "parameters": {"query": "q"}}
EMBED = {"step_id": "embed", "type": "embedding", "parameters": {"text": "a text"}}
TWO = {"deadline": "60s", "steps": [EMBED, ASK]}


@pytest.fixture(scope="module")
def clocks(platform):
    """Return the clocks of the host of an orchestration worker, and of that of an embeddings worker."""
    with ExitStack() as stack:
        orchestration, embeddings = (stack.enter_context(HostClock(offset)) for offset in (HOUR, -HOUR))
        with orchestration.host():
            platform.orchestration()
        with embeddings.host():
            platform.embeddings()
        yield orchestration, embeddings


def test_a_run_ends_in_time_on_hosts_that_are_hours_apart(platform, clocks):
    """The first step crosses to the other host, and the second is claimed with the first one's end."""
    for step in (0.0, -2 * HOUR):
        for sign, clock in zip((1, -1), clocks, strict=True):
            clock.step(sign * step)
        run_id = platform.begin(TWO)
        assert platform.db.ended(run_id) == "succeeded", platform.db.error(run_id)


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
def test_a_delay_that_a_server_asks_for_is_held_against_what_the_run_has_left(db, monkeypatch, offset):
    ours = time.time
    monkeypatch.setattr(time, "time", lambda: ours() + offset)
    states = {}
    for asked in (5, 90):
        run_id = db.submit({"deadline": "60s", "steps": [ASK | {"timeout": "300s"}]})
        [claim] = db.transitions.start(StepRef(run_id=run_id, step_id="ask")).claims
        db.transitions.fail(claim.ref, claim.attempt, LlmUnavailable("slow down", retry_after=asked))
        states[asked] = db.status(run_id)
    assert states == {5: "running", 90: "failed"}
