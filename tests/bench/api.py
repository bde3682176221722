"""`POST /v1/embeddings` on cached texts, beside a bare endpoint under the same server that returns the same bytes."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.bench.figure import Benchmark, Figure
from tests.bench.load import texts
from tests.bench.processes import ROOT, child, free_port, wait_until
from tests.bench.stack import Stack

PATH = "/v1/embeddings"
TEXTS = 64
WARM_UP_SECONDS = 1.0
BARE = [
    *(sys.executable, "-m", "gunicorn", "tests.bench.bare_api:app"),
    *("--worker-class=tests.bench.bare_api.BareWorker", "--workers=1", "--log-level=warning"),
]


def measure(stack: Stack) -> list[Figure]:
    """Measure requests per second, one text each; API and bare endpoint have one server process each."""
    bodies = [json.dumps({"model": "nomic-embed-text", "input": text}) for text in texts("api", TEXTS)]
    with stack.citadel_worker(), _api(stack) as api_port:
        answers = [_post(api_port, body) for body in bodies]
        with _bare(answers[0]) as bare_port:
            for port in (api_port, bare_port):
                _load(port, bodies, WARM_UP_SECONDS)
            seconds = stack.scale.api_seconds
            rounds = [
                (_load(api_port, bodies, seconds), _load(bare_port, bodies, seconds)) for _ in range(stack.scale.rounds)
            ]
    baseline = "a bare endpoint with the same answer"
    return [Figure.of_rounds("api_hits_vs_bare", "requests/s", baseline=baseline, rounds=rounds)]


@contextlib.contextmanager
def _api(stack: Stack) -> Iterator[int]:
    port = free_port()
    env = stack.citadel_environment() | {"CITADEL_API__PORT": str(port), "CITADEL_API__WORKERS": "1"}
    env["CITADEL_API__KEYLESS"] = "loopback"
    command = [sys.executable, "-m", "citadel_orchestration.api"]
    with child("api", command, env, ready=lambda: wait_until(lambda: _answers(port, "/livez"), "the API")):
        yield port


@contextlib.contextmanager
def _bare(body: bytes) -> Iterator[int]:
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "body"
        file.write_bytes(body)
        with child(
            "bare-api",
            [*BARE, f"--bind=127.0.0.1:{port}"],
            {"BARE_BODY": str(file)},
            ready=lambda: wait_until(lambda: _answers(port, PATH), "the bare endpoint"),
        ):
            yield port


def _answers(port: int, path: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}").status_code in {200, 405}
    except httpx.HTTPError:
        return False


def _post(port: int, body: str) -> bytes:
    headers = {"content-type": "application/json"}
    response = httpx.post(f"http://127.0.0.1:{port}{PATH}", content=body, headers=headers, timeout=30.0)
    response.raise_for_status()
    return response.content


def _load(port: int, bodies: list[str], seconds: float) -> float:
    job = json.dumps({"port": port, "path": PATH, "bodies": bodies, "seconds": seconds})
    command = [sys.executable, "-m", "tests.bench.http_load"]
    done = subprocess.run(command, cwd=ROOT, input=job + "\n", capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    if result["failures"] or not result["answers"]:
        raise RuntimeError(f"requests failed: {result['failures'] or done.stderr[-500:]}")
    return float(result["answers"] / result["seconds"])


BENCHMARK = Benchmark(names=("api_hits_vs_bare",), measure=measure)
