"""The workflow engine: steps in place beside DBOS, steps across services beside a bare Celery chain, batches."""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from celery import Celery, chain, signature

from tests.bench import noop
from tests.bench.figure import Benchmark, Figure
from tests.bench.lists import DIRECT, direct_rate
from tests.bench.load import texts
from tests.bench.postgres import postgres_process
from tests.bench.processes import ROOT, child, free_port, wait_until
from tests.bench.stack import Stack

STEPS = 10
"""Steps of a chain."""
AT_ONCE = 100
PEERS = ROOT / ".venv-bench" / "bin" / "python"


def measure_in_service(stack: Stack) -> list[Figure]:
    """Measure the milliseconds per step (p50) of one run at a time whose steps do nothing."""
    runs = stack.scale.workflow_runs
    with postgres_process() as dsn:
        rounds = [
            (_json_of([sys.executable, "-m", "tests.bench.in_service", dsn, str(runs), str(STEPS)]), _dbos(dsn, runs))
            for _ in range(stack.scale.rounds)
        ]
    return [Figure.of_rounds("step_in_service_vs_dbos", "ms/step (p50)", baseline="DBOS Transact", rounds=rounds)]


def _dbos(dsn: str, runs: int) -> float:
    return _json_of([str(PEERS), "tests/bench/peers/dbos_steps.py", dsn, str(runs), str(STEPS)])


def _json_of(command: list[str]) -> float:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} failed: {done.stderr[-800:]}")
    return float(json.loads(done.stdout.strip().splitlines()[-1])["p50_ms"])


def measure_across(stack: Stack) -> list[Figure]:
    """Measure runs of embedding steps with cached texts, beside chains of as many tasks that do nothing."""
    with everything(stack), stack.noop_worker(), _clients(stack) as (citadel, bare):
        _run_one(citadel, "warm-up")
        _chain_one(bare)
        single = [
            (_p50(lambda number=number: _run_one(citadel, str(number)), stack), _p50(lambda: _chain_one(bare), stack))
            for number in range(stack.scale.rounds)
        ]
        rates = [(_run_many(citadel), _chain_many(bare)) for _ in range(stack.scale.rounds)]
    return [
        Figure.of_rounds("step_across_vs_chain", "ms/step (p50)", baseline="a bare Celery chain", rounds=single),
        Figure.of_rounds(
            "steps_rate_vs_chain", "steps/s", baseline=f"{AT_ONCE} bare Celery chains at once", rounds=rates
        ),
    ]


def measure_submit(stack: Stack) -> list[Figure]:
    """Measure accepted runs per second, beside empty transactions of the same database from as many threads."""
    with everything(stack) as (port, dsn):
        rounds = [(_submit_rate(port), commit_rate(dsn)) for _ in range(stack.scale.rounds)]
    return [
        Figure.of_rounds("submit_runs_rate", "runs/s", baseline="one-row transactions on that database", rounds=rounds)
    ]


def measure_batch(stack: Stack) -> list[Figure]:
    """Measure a batch of cold texts from its upload until its run has ended, beside the backend itself."""
    count = stack.scale.batch_texts
    with everything(stack) as (port, _):
        best = max(DIRECT, key=lambda shape: direct_rate(stack.backend.url, texts("trial", 2000), *shape))
        rounds = [
            (
                _batch_rate(port, texts(f"batch {number}", count)),
                direct_rate(stack.backend.url, texts(f"direct {number}", count // 4), *best),
            )
            for number in range(2)
        ]
    return [Figure.of_rounds("batch_20000_vs_backend", "texts/s", baseline="the backend itself", rounds=rounds)]


@contextlib.contextmanager
def everything(stack: Stack, settings: Mapping[str, str] | None = None) -> Iterator[tuple[int, str]]:
    """Run all of Citadel; give the API's port and the URL of the database."""
    port = free_port()
    with tempfile.TemporaryDirectory() as qdrant, postgres_process() as dsn, stack.citadel_worker():
        env = stack.citadel_environment() | {
            "CITADEL_POSTGRES_DSN": dsn,
            "CITADEL_QDRANT__PATH": str(Path(qdrant) / "qdrant"),
            "CITADEL_API__PORT": str(port),
            "CITADEL_API__WORKERS": "1",
            "CITADEL_API__KEYLESS": "loopback",
            **(settings or {}),
        }
        with (
            child("orchestration", [sys.executable, "-m", "citadel_orchestration"], env),
            child(
                "api",
                [sys.executable, "-m", "citadel_orchestration.api"],
                env,
                ready=lambda: wait_until(lambda: _answers(port), "the API"),
            ),
        ):
            yield port, dsn


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v1/runs").status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


@contextlib.contextmanager
def _clients(stack: Stack) -> Iterator[tuple[Celery, Celery]]:
    citadel = Celery(broker=stack.citadel["broker"], backend=stack.citadel["broker"])
    bare = Celery(broker=stack.noop["broker"], backend=stack.noop["broker"])
    try:
        yield citadel, bare
    finally:
        citadel.close()
        bare.close()


def _definition(label: str) -> dict[str, Any]:
    steps = [{"step_id": f"s{n}", "type": "embedding", "parameters": {"text": f"cached {n}"}} for n in range(STEPS)]
    return {"workflow_id": label, "steps": steps, "output": "done"}


def _run_one(app: Celery, label: str) -> None:
    result = app.send_task("execute_workflow", args=[_definition(label)], queue="orchestration").get(timeout=60)
    if not result["success"]:
        raise RuntimeError(result["error"])


def _chain_one(app: Celery) -> None:
    _chain(app).apply_async().get(timeout=60)


def _chain(app: Celery) -> Any:
    first, *others = (
        signature(noop.TASK, args=("x",) if not n else (), queue=noop.QUEUE, app=app) for n in range(STEPS)
    )
    return chain(first, *others, app=app)


def _p50(act: Any, stack: Stack) -> float:
    """Return the milliseconds per step."""
    taken = []
    for _ in range(stack.scale.workflow_runs):
        started = time.perf_counter()
        act()
        taken.append((time.perf_counter() - started) * 1000 / STEPS)
    return statistics.median(taken)


def _run_many(app: Celery) -> float:
    started = time.perf_counter()
    tasks = [
        app.send_task("execute_workflow", args=[_definition(str(n))], queue="orchestration") for n in range(AT_ONCE)
    ]
    for task in tasks:
        if not task.get(timeout=120)["success"]:
            raise RuntimeError("a run failed")
    return AT_ONCE * STEPS / (time.perf_counter() - started)


def _chain_many(app: Celery) -> float:
    started = time.perf_counter()
    for result in [_chain(app).apply_async() for _ in range(AT_ONCE)]:
        result.get(timeout=120)
    return AT_ONCE * STEPS / (time.perf_counter() - started)


def _submit_rate(port: int, runs: int = 1000, threads: int = 8) -> float:
    body = {"workflow_id": "submit", "steps": [{"step_id": "w", "type": "wait", "parameters": {"duration": "1h"}}]}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client, ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        answers = list(pool.map(lambda _: client.post("/v1/workflows", json=body).status_code, range(runs)))
        seconds = time.perf_counter() - started
    if set(answers) != {202}:
        raise RuntimeError(f"answers: {set(answers)}")
    return runs / seconds


def commit_rate(dsn: str, rows: int = 1000, threads: int = 8) -> float:
    """Return the one-row transactions per second of so many threads."""
    import psycopg

    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS bench (n bigserial PRIMARY KEY, body bytea)")

    def insert(_: int) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            for _ in range(rows // threads):
                connection.execute("INSERT INTO bench (body) VALUES (%s)", [b"x" * 500])

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(insert, range(threads)))
    return rows / (time.perf_counter() - started)


def _batch_rate(port: int, content: list[str]) -> float:
    lines = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in content)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
        started = time.perf_counter()
        headers = {"content-type": "application/x-ndjson"}
        accepted = client.post("/v1/embeddings/batches", content=lines, headers=headers)
        accepted.raise_for_status()
        with client.stream("GET", accepted.headers["location"] + "/events", timeout=None) as events:
            for _ in events.iter_lines():
                continue
        seconds = time.perf_counter() - started
        run = client.get(accepted.headers["location"], params={"outputs": "false"}).json()
    if run["status"] != "succeeded" or run["steps"][0]["items"]["failed"]:
        raise RuntimeError(f"the batch is {run['status']}: {run.get('error')}")
    return len(content) / seconds


IN_SERVICE = Benchmark(names=("step_in_service_vs_dbos",), measure=measure_in_service)
ACROSS = Benchmark(names=("step_across_vs_chain", "steps_rate_vs_chain"), measure=measure_across)
SUBMIT = Benchmark(names=("submit_runs_rate",), measure=measure_submit)
BATCH = Benchmark(names=("batch_20000_vs_backend",), measure=measure_batch)
