"""Sizes of the benchmarks: full, or quick for a first look."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Sizes of the benchmarks.

    Attributes:
        quick: True if the figures are only a first look.
        rounds: Rounds in which baseline and Citadel take turns.
        single_tasks: Single-text tasks of a round, Citadel and no-op each.
        naive_tasks: Single-text tasks of a round, naive form.
        list_texts: Texts of a list.
        naive_list_rounds: Rounds of the naive form with its cached list, ten seconds each.
        memory_tasks: Tasks before the first and the second look at the worker's memory.
        api_seconds: Seconds of load on an endpoint per round.
        workflow_runs: Runs of one workflow after the other.
        batch_texts: Texts of a batch.
        producers: Producer processes.
        window: Tasks under way per producer.
    """

    quick: bool = False
    rounds: int = 5
    single_tasks: int = 4000
    naive_tasks: int = 120
    list_texts: int = 2000
    naive_list_rounds: int = 2
    memory_tasks: tuple[int, int] = (10_000, 100_000)
    api_seconds: float = 4.0
    workflow_runs: int = 50
    batch_texts: int = 20_000
    producers: int = 4
    window: int = 32

    def as_json(self) -> dict[str, Any]:
        """Return the written form."""
        return asdict(self)


FULL = Scale()
QUICK = Scale(
    quick=True,
    rounds=2,
    single_tasks=1500,
    naive_tasks=60,
    naive_list_rounds=1,
    memory_tasks=(2000, 10_000),
    api_seconds=1.5,
    workflow_runs=10,
    batch_texts=2000,
)
