"""The faults of a storm in their order: the same seed makes the same ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from tests.chaos.storm.faults import FAULTS


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """One fault.

    Attributes:
        name: Its name in FAULTS.
        seconds: How long it lasts.
        seed: Seed of what is random in it.
    """

    name: str
    seconds: float
    seed: int


def scheduled(seed: int, names: Sequence[str]) -> Iterator[Scheduled]:
    """Yield faults without end: all of them in some order, then all of them in another."""
    random = Random(seed)
    while True:
        for name in random.sample(names, len(names)):
            _, (least, most) = FAULTS[name]
            yield Scheduled(name=name, seconds=random.uniform(least, most), seed=random.randrange(2**32))
