"""DBOS Transact: steps that do nothing, one workflow at a time. Runs in an environment of its own.

Run as `python dbos_steps.py DSN RUNS STEPS`; prints a line of JSON.
"""

import json
import statistics
import sys
import time

from dbos import DBOS, DBOSConfig


@DBOS.step()
def nothing() -> dict[str, bool]:
    """Return at once."""
    return {"ok": True}


@DBOS.workflow()
def workflow(steps: int) -> None:
    """Run that many steps."""
    for _ in range(steps):
        nothing()


def main() -> None:
    """Run one workflow after the other."""
    dsn, runs, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    config: DBOSConfig = {"name": "bench", "system_database_url": dsn, "log_level": "ERROR"}
    DBOS(config=config)
    DBOS.launch()
    for _ in range(5):
        workflow(steps)
    taken = []
    for _ in range(runs):
        started = time.perf_counter()
        workflow(steps)
        taken.append((time.perf_counter() - started) * 1000 / steps)
    print(json.dumps({"p50_ms": statistics.median(taken)}), flush=True)
    DBOS.destroy()


main()
