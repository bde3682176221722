"""A storm: steady load on the whole of Citadel while one thing after another breaks, and then the audit."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import yaml

from tests.chaos.storm.audit import Audit, quiet_within
from tests.chaos.storm.cluster import Cluster, open_cluster
from tests.chaos.storm.faults import FAULTS, OF_ONE, settle_down
from tests.chaos.storm.flushing import Flushes
from tests.chaos.storm.healing import Healing
from tests.chaos.storm.ledger import Kind, Ledger
from tests.chaos.storm.load import Load, Senders
from tests.chaos.storm.report import MIB, Memory, Report, Window
from tests.chaos.storm.schedule import Scheduled, scheduled
from tests.chaos.storm.watcher import Watcher
from tests.support.child import ROOT
from tests.support.disclosure import DISCLOSURES

LIMITS = ROOT / "compose" / "limits.yaml"
CALM_S = 1.0
"""Seconds between the healing of one fault and the next."""
SUPERVISION_S = 1.0
UNITS = {"m": MIB, "g": 2**30}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The size of a storm.

    Attributes:
        seed: Seed of faults and load.
        seconds: Seconds of load; the faults end before.
        faults: Names of the faults.
        sentinel: Whether Redis is a pair behind a sentinel, with the faults of OF_SENTINEL.
        most_faults: Number of faults at most.
        members: Number of processes of each kind.
        rate: Factor of the rate of the load; 1 is about 20 pieces of work a second.
        without: Kinds of work that are left out.
        heal_bound: Seconds within which new work of all kinds is finished after each fault.
        patience: Seconds until a fault's healing, and at the end until everything accepted has ended, is given up.
    """

    seed: int
    seconds: float
    faults: Sequence[str] = OF_ONE
    sentinel: bool = False
    most_faults: int | None = None
    members: Mapping[str, int] = field(
        default_factory=lambda: {
            "api": 1,
            "embeddings": 2,
            "orchestration": 2,
            "monitoring": 1,
            "maintenance": 1,
            "beat": 2,
        }
    )
    rate: float = 1.0
    without: frozenset[Kind] = frozenset()
    heal_bound: float = 15.0
    patience: float = 90.0


class Storm:
    """Carries a plan out.

    Args:
        plan: The plan.
        directory: Where logs go.
        say: Takes a line about what happens.
    """

    def __init__(self, plan: Plan, directory: Path, say: Callable[[str], object] = print) -> None:
        self._plan, self._directory, self._say = plan, directory, say
        self.report = Report(seed=plan.seed, heal_bound=plan.heal_bound)
        self._most: dict[str, int] = {}

    def run(self) -> Report:
        """Start everything, let the storm go over it, and return what the audit finds; everything has ended then."""
        with ExitStack() as stack:
            cluster = stack.enter_context(open_cluster(self._directory, sentinel=self._plan.sentinel))
            cluster.start(dict(self._plan.members))
            ledger = Ledger(f"s{self._plan.seed}")
            watcher = stack.enter_context(Watcher(cluster, ledger))
            load = stack.enter_context(closing(Load(ledger, cluster.api_url, cluster.plain_broker, self._plan.seed)))
            flushes = Flushes(ledger, watcher)
            stack.enter_context(self._supervised(cluster))
            self._say(f"{len(cluster.members)} processes serve; the API is at {cluster.api_url}")
            self._under_load(cluster, load, flushes)
            self._audit(cluster, ledger, flushes)
        self.report.others += [f"disclosed: {each.what} in the {each.source}" for each in DISCLOSURES.taken()]
        return self.report

    def _under_load(self, cluster: Cluster, load: Load, flushes: Flushes) -> None:
        healing, begin = Healing(load, self._plan.patience), time.monotonic()
        started = healing.seconds()
        self._say(f"everything works after {started:.1f} s")
        senders = Senders(self._rates(load), threads=3)
        try:
            order = scheduled(self._plan.seed, self._plan.faults)
            for fault in itertools.islice(order, self._plan.most_faults):
                if time.monotonic() + fault.seconds > begin + self._plan.seconds:
                    break
                self._inflict(fault, cluster, flushes, healing)
        except BaseException:
            load.give_up()
            raise
        finally:
            senders.stop()
            settle_down(cluster)

    def _rates(self, load: Load) -> dict[Callable[[], object], float]:
        rates: dict[Kind, tuple[Callable[[], object], float]] = {
            Kind.EMBEDDING: (load.embedding, 8.0),
            Kind.PLAIN: (load.plain, 4.0),
            Kind.TASK: (load.task, 2.0),
            Kind.WORKFLOW: (load.workflow, 2.0),
            Kind.COUNTDOWN: (load.countdown, 1.0),
            Kind.PLAIN_WORKFLOW: (load.plain_workflow, 0.5),
            Kind.CANVAS: (load.canvas, 0.5),
            Kind.BATCH: (load.batch, 0.3),
        }
        plan = self._plan
        return {send: rate * plan.rate for kind, (send, rate) in rates.items() if kind not in plan.without}

    def _inflict(self, fault: Scheduled, cluster: Cluster, flushes: Flushes, healing: Healing) -> None:
        breaks, _ = FAULTS[fault.name]
        begin = time.time()
        with breaks(cluster, Random(fault.seed), flushes):
            time.sleep(fault.seconds)
        end = time.time()
        healed = healing.seconds()
        self.report.windows.append(Window(fault=fault.name, begin=begin, end=end, healed=healed))
        self._say(f"{fault.name} for {end - begin:.1f} s: healed after {healed:.1f} s")
        time.sleep(CALM_S)

    @contextmanager
    def _supervised(self, cluster: Cluster) -> Iterator[None]:
        """Start processes that end by themselves, as any supervisor does, and note the memory of all."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(SUPERVISION_S):
                for member in cluster.members:
                    self._most[member.name] = max(self._most.get(member.name, 0), member.memory())
                    if member.exit_code is not None:
                        self.report.others.append(
                            f"ended by itself: {member.name}, exit code {member.exit_code}; see {member.log}"
                        )
                        member.start()

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _audit(self, cluster: Cluster, ledger: Ledger, flushes: Flushes) -> None:
        self.report.quiet_after = quiet_within(cluster, ledger, self._plan.patience)
        bounds, audit = memory_bounds(), Audit(cluster, ledger, flushes)
        self.report.memory = [
            Memory(process=each.name, last=each.memory(), most=self._most[each.name], bound=bounds[each.kind])
            for each in cluster.members
        ]
        audit.run()
        self.report.entries, self.report.twice, self.report.left = ledger.entries(), audit.twice, audit.left


def memory_bounds() -> dict[str, int]:
    """Return the bytes that a container of each service may have."""
    services = yaml.safe_load(LIMITS.read_text())["services"]
    found = {}
    for name, service in services.items():
        words = service["deploy"]["resources"]["limits"]["memory"]
        found[name] = int(words[:-1]) * UNITS[words[-1]]
    return found
