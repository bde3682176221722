"""Sentences on PostgreSQL's tables: none where all is well, and what to do where it is not."""

from datetime import UTC, datetime

import pytest

from citadel_maintenance.record.vacuum import Table, advice_on

LATELY = datetime(2026, 1, 31, 12, tzinfo=UTC)
WELL = {
    "name": "events",
    "live": 100_000,
    "dead": 1000,
    "total_bytes": 40 * 2**20,
    "heap_bytes": 20 * 2**20,
    "vacuumed_at": LATELY,
    "analyzed_at": LATELY,
    "row_bytes": 150.0,
    "age": 0.1,
    "autovacuum": True,
}


def sentences(**given):
    return list(advice_on(Table(**(WELL | given))))


def test_a_table_that_is_well_needs_no_word():
    assert sentences() == []
    assert sentences(live=0, dead=0, vacuumed_at=None, analyzed_at=None) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"dead": 50_000}, ["33%", "VACUUM (ANALYZE) events", "2026-01-31T12:00:00"]),
        ({"dead": 50_000, "vacuumed_at": None}, ["last vacuumed never"]),
        ({"vacuumed_at": None}, ["never vacuumed", "VACUUM (ANALYZE) events"]),
        ({"analyzed_at": None}, ["never analyzed", "ANALYZE events"]),
        ({"heap_bytes": 2**30}, ["unused", "1024 MiB", "VACUUM FULL events"]),
        ({"age": 0.8}, ["80%", "VACUUM (FREEZE) events"]),
        ({"autovacuum": False}, ["autovacuum is off"]),
    ],
)
def test_what_is_wrong_is_named_with_what_helps(given, words):
    [sentence] = sentences(**given)
    assert sentence.startswith("events: ")
    assert all(word in sentence for word in words)


def test_unused_space_of_rows_that_were_never_measured_is_not_guessed():
    assert Table(**(WELL | {"heap_bytes": 2**30, "analyzed_at": None})).unused_bytes == 0
