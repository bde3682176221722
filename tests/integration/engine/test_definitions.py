"""Parsed definitions are kept within bounds, and read again when they are needed again."""

import pytest

from citadel_orchestration.engine.submission import Definitions


@pytest.fixture
def runs(db):
    """Ten runs, each of whose definitions has about 1000 bytes."""
    query = {"step_id": "a", "type": "llm_query", "parameters": {"query": "q" * 900}}
    return [db.submit({"steps": [query]}) for _ in range(10)]


def read(db, kept, run_ids):
    with db.database.cursor() as cursor:
        return [kept.get(run_id, cursor) for run_id in run_ids]


def known(kept, run_ids):
    return [run_id for run_id in run_ids if kept.known(run_id) is not None]


def test_definitions_are_dropped_beyond_the_limit_of_bytes(db, runs):
    kept = Definitions(db.definitions.types, most_bytes=4_500)
    read(db, kept, runs)
    assert known(kept, runs) == runs[-4:]
    kept.known(runs[6])
    read(db, kept, runs[:1])
    assert set(known(kept, runs)) == {runs[0], runs[6], *runs[8:]}


def test_a_definition_larger_than_the_limit_is_kept_until_another_is_used(db, runs):
    kept = Definitions(db.definitions.types, most_bytes=10)
    first, second = read(db, kept, runs[:2])
    assert known(kept, runs) == [runs[1]]
    assert kept.known(runs[1]) is second
    assert read(db, kept, runs[:1])[0].steps.keys() == first.steps.keys()


def test_definitions_are_dropped_beyond_the_limit_of_number(db, runs):
    kept = Definitions(db.definitions.types, most_kept=3)
    read(db, kept, runs)
    assert known(kept, runs) == runs[-3:]
