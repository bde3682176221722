"""Lists of texts in one task: cold ones beside the backend's own rate, cached ones beside the naive form."""

import asyncio
import time
from typing import Any

import httpx

from tests.bench.figure import Benchmark, Figure
from tests.bench.load import texts
from tests.bench.producer import Job, Producer
from tests.bench.stack import Stack

UNIT = "texts/s"
DIRECT = ((8, 32), (8, 125), (4, 500))
"""Connections and texts per request that a direct client is tried with; the fastest is the baseline."""


def measure_cold(stack: Stack) -> list[Figure]:
    """Measure one list of cold texts in one task, as base64, and as many texts sent straight to the backend."""
    count = stack.scale.list_texts
    with stack.citadel_worker():
        _embed(stack.citadel, texts("warm-up", count), encoding_format="base64")
        best = max(DIRECT, key=lambda shape: direct_rate(stack.backend.url, texts("trial", count), *shape))
        rounds = [
            (
                _embed(stack.citadel, texts(f"cold {number}", count), encoding_format="base64"),
                direct_rate(stack.backend.url, texts(f"direct {number}", count), *best),
            )
            for number in range(stack.scale.rounds)
        ]
    baseline = f"the backend itself ({best[0]} connections, {best[1]} texts a request)"
    return [Figure.of_rounds("cold_list_vs_backend", UNIT, baseline=baseline, rounds=rounds)]


def measure_cached(stack: Stack) -> list[Figure]:
    """Measure the same cached list again and again, as base64 and as lists of floats."""
    content = texts("cached", stack.scale.list_texts)
    with stack.citadel_worker(), stack.naive_worker():
        _embed(stack.citadel, content)
        _embed(stack.naive, content)
        rounds = [_cached_round(stack, content) for _ in range(stack.scale.naive_list_rounds)]
    return [
        Figure.of_rounds(
            "cached_list_vs_naive",
            UNIT,
            baseline="the naive form (floats)",
            rounds=[(base64, naive) for base64, _, naive in rounds],
        ),
        Figure.of_rounds(
            "cached_list_floats_vs_naive",
            UNIT,
            baseline="the naive form (floats)",
            rounds=[(floats, naive) for _, floats, naive in rounds],
        ),
    ]


def _cached_round(stack: Stack, content: list[str]) -> tuple[float, float, float]:
    """Return rates of a round; Citadel's are medians of several lists, since one takes a fraction of a second."""
    base64 = sorted(_embed(stack.citadel, content, encoding_format="base64") for _ in range(5))[2]
    floats = sorted(_embed(stack.citadel, content) for _ in range(5))[2]
    return base64, floats, _embed(stack.naive, content)


def _embed(target: dict[str, str], content: list[str], **kwargs: Any) -> float:
    """Return the texts per second of one task, from before it is sent until its result is read."""
    job = Job(broker=target["broker"], queue=target["queue"], task=target["task"], arguments=[[content]], kwargs=kwargs)
    answer = Producer(job).run()
    if answer["failures"]:
        raise RuntimeError(f"{target['task']} failed: {answer['failures'][0]}")
    return float(len(content) / (answer["finished"] - answer["started"]))


def direct_rate(url: str, content: list[str], connections: int, size: int) -> float:
    """Return the texts per second of a client that sends them straight to the backend."""
    started = time.perf_counter()
    asyncio.run(_send_all(url, content, connections, size))
    return len(content) / (time.perf_counter() - started)


async def _send_all(url: str, content: list[str], connections: int, size: int) -> None:
    batches = [content[start : start + size] for start in range(0, len(content), size)]
    async with httpx.AsyncClient(timeout=120.0, verify=False) as client:
        await asyncio.gather(*(_send(client, url, batches) for _ in range(connections)))


async def _send(client: httpx.AsyncClient, url: str, batches: list[list[str]]) -> None:
    while batches:
        body = {"model": "nomic-embed-text", "input": batches.pop()}
        response = await client.post(f"{url}/api/embed", json=body)
        response.raise_for_status()


COLD = Benchmark(names=("cold_list_vs_backend",), measure=measure_cold)
CACHED = Benchmark(names=("cached_list_vs_naive", "cached_list_floats_vs_naive"), measure=measure_cached)
