"""The order in which children are ended, and how."""

from dataclasses import dataclass
from signal import SIGINT, SIGTERM, Signals


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Children that are ended together.

    Attributes:
        names: Theirs.
        grace: Seconds they get.
        signal: What asks them to end.
    """

    names: tuple[str, ...]
    grace: float
    signal: Signals = SIGTERM

    def told(self, pids: dict[str, int]) -> dict[str, object]:
        """As the guardian is told it: who of them runs."""
        running = [pid for name, pid in pids.items() if name in self.names]
        return {"grace": self.grace, "signal": self.signal, "pids": running}


STAGES = (
    Stage(names=("api", "beat", "exporter"), grace=20.0),
    Stage(names=("embeddings", "orchestration", "monitoring", "maintenance"), grace=30.0),
    # SIGTERM would have it wait for every client, a forgotten psql too
    Stage(names=("postgres",), grace=20.0, signal=SIGINT),
    Stage(names=("broker", "cache"), grace=20.0),
)
