"""The short form of the storm: nothing that was accepted is lost, wrong, recorded twice or stuck."""

from pathlib import Path

import pytest

from tests.chaos.storm.storm import Plan, Storm
from tests.support.fixtures import require_postgres, require_redis

FAULTS = (
    "embeddings killed",
    "orchestration killed",
    "orchestration stopped",
    "redis restarted",
    "redis flushed",
    "postgres connections reset",
    "postgres restarted",
    "ollama dead",
    "qdrant dead",
    "llm answers garbage",
)
PLAN = Plan(
    seed=1,
    seconds=150,
    faults=FAULTS,
    most_faults=len(FAULTS),
    members={"api": 1, "embeddings": 2, "orchestration": 2, "maintenance": 1, "beat": 1},
    rate=0.5,
    heal_bound=120,  # the machine may be busy with other tests
    patience=120,
)


@pytest.mark.timeout(600)
def test_nothing_is_lost_or_done_twice_while_one_thing_after_another_breaks(tmp_path: Path) -> None:
    require_redis()
    require_postgres()
    report = Storm(PLAN, tmp_path).run()
    print(report)
    assert not report.offences, "\n".join(report.offences)
    assert {window.fault for window in report.windows} <= set(FAULTS)
    assert len(report.windows) >= 3, "most of the storm did not take place"
