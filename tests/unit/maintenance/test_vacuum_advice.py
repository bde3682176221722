"""Advice on PostgreSQL's tables: none for a healthy one, else what to do."""

from datetime import UTC, datetime

import pytest

from citadel_maintenance.db import Table
from citadel_maintenance.vacuum_advice import advice_on

RECENTLY = datetime(2026, 1, 31, 12, tzinfo=UTC)
HEALTHY = {
    "name": "events",
    "live": 100_000,
    "dead": 1000,
    "total_bytes": 40 * 2**20,
    "heap_bytes": 20 * 2**20,
    "vacuumed_at": RECENTLY,
    "analyzed_at": RECENTLY,
    "row_bytes": 150.0,
    "age": 0.1,
    "autovacuum": True,
}


def sentences(**given):
    return list(advice_on(Table(**(HEALTHY | given))))


def test_a_healthy_table_gets_no_advice():
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
def test_advice_names_the_problem_and_the_command(given, words):
    [sentence] = sentences(**given)
    assert sentence.startswith("events: ")
    assert all(word in sentence for word in words)


def test_unused_space_of_a_table_never_analyzed_is_not_guessed():
    assert Table(**(HEALTHY | {"heap_bytes": 2**30, "analyzed_at": None})).unused_bytes == 0
