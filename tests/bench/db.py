"""The database of runs under load: operations beside 100,000 finished runs, steps beside hanging LLM calls."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any

import httpx
import psycopg

from tests.bench.figure import Benchmark, Figure
from tests.bench.stack import Stack
from tests.bench.workflows import STEPS, everything
from tests.doubles.process import LlmProcess

FEW, MANY = 100, 100_000
HANGING = 100
REPEATS = 60
UNIT = "ms (p50)"
_RUNS = """
INSERT INTO runs (run_id, kind, workflow_id, status, lane, labels, fingerprint, depth, definition, context, output,
    steps_total, unfinished, last_event, created_at, started_at, finished_at)
SELECT gen_random_uuid(), 'workflow', 'old-' || n %% 100, 'succeeded', 3, jsonb_build_object('n', (n %% 1000)::text),
    '\\x00', 0, %s, '{}', 'null', 1, 0, 4, at, at, at
FROM generate_series(1, %s) AS n, LATERAL (SELECT now() - n * interval '1 second' AS at) AS times
"""
_STEPS = """
INSERT INTO steps (run_id, step_id, item, position, status, attempt, started_at, finished_at)
SELECT run_id, 'w', -1, 0, 'succeeded', 1, created_at, created_at FROM runs WHERE workflow_id LIKE 'old-%'
ON CONFLICT DO NOTHING
"""
_EVENTS = """
INSERT INTO events (run_id, seq, type, data) SELECT run_id, seq, 'step_succeeded', '{}'
FROM runs, generate_series(1, 4) AS seq WHERE workflow_id LIKE 'old-%' ON CONFLICT DO NOTHING
"""
DEFINITION = b'{"steps": [{"step_id": "w", "type": "wait", "parameters": {"duration": "1h"}}]}'


def measure_size(stack: Stack) -> list[Figure]:
    """Measure list, show and submit with many finished runs in the database, and with few."""
    with everything(stack) as (port, dsn), httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        _fill(dsn, FEW)
        few = _operations(client)
        _fill(dsn, MANY - FEW)
        many = _operations(client)
    return [
        Figure.single(f"{name}_at_100000_runs", many[name], UNIT, baseline=f"with {FEW} runs", baseline_value=few[name])
        for name in few
    ]


def _fill(dsn: str, runs: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_RUNS, [DEFINITION, runs])
        connection.execute(_STEPS)
        connection.execute(_EVENTS)
        connection.execute("VACUUM ANALYZE")


def _operations(client: httpx.Client) -> dict[str, float]:
    run_id = client.get("/v1/runs").json()["runs"][0]["run_id"]
    body = DEFINITION.decode()
    headers = {"content-type": "application/json"}
    return {
        "list": _p50(lambda: client.get("/v1/runs", params={"workflow_id": "old-7", "label": "n:7"})),
        "show": _p50(lambda: client.get(f"/v1/runs/{run_id}")),
        "submit": _p50(lambda: client.post("/v1/workflows", content=body, headers=headers)),
    }


def _p50(act: Callable[[], httpx.Response]) -> float:
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        act().raise_for_status()
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken)


def measure_hanging(stack: Stack) -> list[Figure]:
    """Measure the milliseconds (p99) between the steps of other runs while LLM calls hang, and on an idle worker."""
    with _llm() as quick, _llm() as slow:
        slow.behaviour("hang")
        endpoints = {
            "CITADEL_LLM__ENDPOINTS__quick__URL": quick.url,
            "CITADEL_LLM__ENDPOINTS__quick__MODEL": "tiny-llm",
            "CITADEL_LLM__ENDPOINTS__slow__URL": slow.url,
            "CITADEL_LLM__ENDPOINTS__slow__MODEL": "tiny-llm",
            "CITADEL_LLM__ENDPOINTS__slow__MAX_CONCURRENCY": str(HANGING),
        }
        with everything(stack, endpoints) as (port, _), httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            _gaps(client, 5)
            idle = _p99(_gaps(client, 30))
            for _ in range(HANGING):
                _submit(client, "slow", 1)
            while slow.stats()["in_flight"] < HANGING:
                time.sleep(0.1)
            beside = _p99(_gaps(client, 30))
    return [
        Figure.single(
            "transition_p99_beside_hanging", beside, "ms (p99)", baseline="an idle worker", baseline_value=idle
        )
    ]


@contextlib.contextmanager
def _llm() -> Iterator[LlmProcess]:
    double = LlmProcess(models="tiny-llm")
    try:
        yield double
    finally:
        double.kill()


def _submit(client: httpx.Client, endpoint: str, steps: int) -> str:
    definition = {
        "steps": [
            {"step_id": f"s{n}", "type": "llm_query", "parameters": {"query": f"hi {n}", "endpoint": endpoint}}
            for n in range(steps)
        ]
    }
    answer = client.post("/v1/workflows", json=definition).raise_for_status()
    return str(answer.headers["location"])


def _gaps(client: httpx.Client, runs: int) -> list[float]:
    """Return the milliseconds between the ends of successive steps, by the database's clock."""
    gaps: list[float] = []
    for _ in range(runs):
        location = _submit(client, "quick", STEPS)
        with client.stream("GET", f"{location}/events", timeout=60) as events:
            for _ in events.iter_lines():
                continue
        found: list[dict[str, Any]] = client.get(f"{location}/events", headers={"accept": "application/json"}).json()
        ends = [_at(event) for event in found if event["type"] == "step_succeeded"]
        gaps += [(after - before) * 1000 for before, after in pairwise(ends)]
    return gaps


def _at(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["at"]).timestamp()


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


SIZE = Benchmark(names=("list_at_100000_runs", "show_at_100000_runs", "submit_at_100000_runs"), measure=measure_size)
HANGING_CALLS = Benchmark(names=("transition_p99_beside_hanging",), measure=measure_hanging)
