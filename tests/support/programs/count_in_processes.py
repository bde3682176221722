"""Print the metrics of N processes that share them: `python -m tests.support.programs.count_in_processes N` (1 or 2).

With two, prints a page while both live, one when the first has ended, and one when both have, separated by `---`.
"""

import multiprocessing
import sys
from typing import Any

from citadel_common.telemetry import names
from citadel_common.telemetry.prometheus import PrometheusMetrics, forget_process


def count(value: int, counted: Any, stop: Any) -> None:
    """Count in a child process, and live until it is stopped."""
    metrics = PrometheusMetrics()
    metrics.count(names.BREAKER_CHANGES, value, backend="main", state="open")
    metrics.set(names.BREAKERS_OPEN, 9, backend="main")
    metrics.set(names.BREAKERS_OPEN, value, backend="main")
    counted.set()
    stop.wait()


def page(metrics: PrometheusMetrics) -> str:
    """Return the metrics in Prometheus' form."""
    return metrics.render("text/plain")[0].decode()


def count_in_two() -> list[str]:
    """Return the pages of two processes."""
    fork = multiprocessing.get_context("fork")
    processes = []
    for value in (1, 2):
        counted, stop = fork.Event(), fork.Event()
        process = fork.Process(target=count, args=(value, counted, stop), daemon=True)
        process.start()
        counted.wait()
        processes.append((process, stop))
    metrics = PrometheusMetrics()
    pages = [page(metrics)]
    for process, stop in processes:
        stop.set()
        process.join()
        forget_process(process.pid or 0)
        pages.append(page(metrics))
    return pages


def count_alone() -> list[str]:
    """Return the page of this process."""
    metrics = PrometheusMetrics()
    metrics.set(names.BREAKERS_OPEN, 2, backend="main")
    forget_process(1)
    return [page(metrics)]


if __name__ == "__main__":
    sys.stdout.write("---".join(count_in_two() if sys.argv[1] == "2" else count_alone()))
