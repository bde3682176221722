"""`python -m tests.bench`: measures, writes bench-results/latest.json, prints a table.

ONLY=name,name   only the figures of these names (and what is measured together with them)
QUICK=1          a first look: smaller sizes, fewer rounds
"""

import os
import sys
import time

from tests.bench import (
    api,
    db,
    lists,
    maintenance,
    memory,
    report,
    single_text,
    telemetry,
    transitions,
    transport,
    workflows,
)
from tests.bench.figure import Benchmark, Figure
from tests.bench.processes import ROOT
from tests.bench.scale import FULL, QUICK
from tests.bench.stack import stack

BENCHMARKS: tuple[Benchmark, ...] = (
    single_text.BENCHMARK,
    transport.BENCHMARK,
    lists.COLD,
    lists.CACHED,
    api.BENCHMARK,
    workflows.IN_SERVICE,
    workflows.ACROSS,
    workflows.SUBMIT,
    workflows.BATCH,
    transitions.BENCHMARK,
    db.SIZE,
    db.HANGING_CALLS,
    maintenance.BENCHMARK,
    memory.BENCHMARK,
    telemetry.BENCHMARK,
)


def main() -> None:
    """Run the benchmarks of the figures that ONLY names."""
    wanted = _wanted()
    scale = QUICK if os.environ.get("QUICK", "") not in ("", "0") else FULL
    started = time.monotonic()
    figures: list[Figure] = []
    for benchmark in BENCHMARKS:
        names = wanted & set(benchmark.names)
        if names:
            _say(f"measuring {', '.join(benchmark.names)} ...")
            with stack(scale) as running:
                figures += [figure for figure in benchmark.measure(running) if figure.name in names]
            report.write(report.document(figures, scale, time.monotonic() - started))
    print(report.table(figures))
    _say(f"written to {report.PATH.relative_to(ROOT)}")


def _wanted() -> set[str]:
    known = {name for benchmark in BENCHMARKS for name in benchmark.names}
    asked = {name.strip() for name in os.environ.get("ONLY", "").split(",") if name.strip()}
    unknown = asked - known
    if unknown:
        sys.exit(f"bench: no figure named {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    return asked or known


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


main()
