"""`python -m tests.chaos.storm`: a storm of faults over the whole of Citadel, and its audit.

Variables: `SEED` (1) makes the same faults again, `MINUTES` (10) bounds the load, `FAULTS` names some faults only
(parts of their names, separated by commas), `SENTINEL=1` makes Redis a pair behind a sentinel that fails over. The
tables and the logs go to `bench-results/chaos/`. The exit code is 1 if anything accepted was lost, is wrong, was
recorded twice or is stuck, or if a process outgrew its bound.
"""

import json
import os
import signal
import sys
import time

from tests.chaos.storm.faults import OF_ONE, OF_SENTINEL
from tests.chaos.storm.storm import Plan, Storm
from tests.support.child import ROOT

RESULTS = ROOT / "bench-results" / "chaos"


def main() -> int:
    """Run a storm and return the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    seed, minutes = int(os.environ.get("SEED") or 1), float(os.environ.get("MINUTES") or 10)
    parts = [part.strip() for part in (os.environ.get("FAULTS") or "").split(",")]
    sentinel = bool(os.environ.get("SENTINEL"))
    names = [name for name in (OF_SENTINEL if sentinel else OF_ONE) if any(part in name for part in parts)]
    directory = RESULTS / time.strftime(f"%Y%m%d-%H%M%S-seed{seed}")
    begin = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - begin:7.1f} s  {line}", flush=True)

    storm = Storm(Plan(seed=seed, seconds=minutes * 60, faults=names, sentinel=sentinel), directory, say)
    try:
        report = storm.run()
    except KeyboardInterrupt:
        print("interrupted: everything that was started has ended", file=sys.stderr)
        return 130
    (directory / "report.json").write_text(json.dumps(report.as_json(), indent=1, default=str))
    (directory / "report.txt").write_text(str(report) + "\n")
    print(f"\n{report}\n\nin {directory}")
    return 1 if report.offences else 0


if __name__ == "__main__":
    sys.exit(main())
