"""What a worker reads for the items of a `for_each`: the scope once, however many items it executes."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from citadel_common.errors import PayloadTooLarge
from citadel_orchestration.db import payloads
from citadel_orchestration.db.models import StepRef
from citadel_orchestration.definition.sizes import RunLimits, SizeLimit
from citadel_orchestration.engine.step_inputs import SharedScopes, StepInputs

BIG = "x" * 100_000
ITEMS = 40


@pytest.fixture
def bytes_read(monkeypatch):
    """Return the bytes of each context that is read from the database."""
    read, found = payloads.context_of, []

    def counted(cursor, run_id, **options):
        size, body = read(cursor, run_id, **options)
        found.extend([len(body)] if body is not None else [])
        return size, body

    monkeypatch.setattr(payloads, "context_of", counted)
    return found


def inputs_of(db, **limits):
    return StepInputs(database=db.database, definitions=db.definitions, **limits)


def claims(db, count=ITEMS):
    """Begin a run and return claims of the items of its only step."""
    step = {
        "step_id": "each",
        "type": "llm_query",
        "for_each": {"items": [f"q{n}" for n in range(count)], "max_parallel": count},
        "parameters": {"query": "${{ item }}", "context": "${{ context.big }}"},
    }
    run_id = db.submit({"context": {"big": BIG}, "steps": [step]})
    [claim] = db.transitions.start(StepRef(run_id=run_id, step_id="each")).claims
    return db.transitions.expand(claim.ref, 1, [f"q{n}" for n in range(count)], max_parallel=count).claims


def queries(inputs, wanted):
    def query(claim):
        return inputs.parameters(*inputs.read(claim))[0].query

    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(query, wanted))


def test_the_items_of_a_step_read_their_scope_once(db, bytes_read):
    assert queries(inputs_of(db), claims(db)) == [f"q{n}" for n in range(ITEMS)]
    assert bytes_read == [len(BIG) + 10]


def test_a_scope_that_is_too_large_to_be_kept_is_read_for_each_item(db, bytes_read):
    inputs = inputs_of(db, shared=SharedScopes(1000))
    assert [queries(inputs, [claim]) for claim in claims(db, 3)] == [["q0"], ["q1"], ["q2"]]
    assert len(bytes_read) == 3


def test_the_scope_of_an_earlier_attempt_is_not_used(db, bytes_read):
    [claim] = claims(db, 1)
    inputs = inputs_of(db)
    queries(inputs, [claim, claim])
    db.rows("UPDATE steps SET attempt = attempt + 1 WHERE item = -1")
    queries(inputs, [claim])
    assert len(bytes_read) == 2


def test_a_scope_over_its_limit_is_refused_before_it_is_read(db, bytes_read):
    limits = RunLimits(scope=SizeLimit(bytes=50_000, setting="workflows.max_scope_bytes"))
    [claim] = claims(db, 1)
    with pytest.raises(PayloadTooLarge, match=r"has 100,01\d bytes as JSON; the limit \(workflows.max_scope_bytes\)"):
        inputs_of(db, limits=limits).read(claim)
    assert bytes_read == []
