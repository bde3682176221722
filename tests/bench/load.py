"""Many producers at once, and the rate at which their tasks are answered."""

import json
import subprocess
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from tests.bench.processes import ROOT


class Producers:
    """Producer processes; they live over many jobs, so that starting them is not measured."""

    def __init__(self, count: int, window: int) -> None:
        self._window = window
        command = [sys.executable, "-m", "tests.bench.producer"]
        self._children = [
            subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(count)
        ]

    def run(self, target: dict[str, str], arguments: list[list[Any]], **kwargs: Any) -> float:
        """Return the tasks per second, from the first sent to the last answered.

        Args:
            target: `broker`, `queue` and `task`.
            arguments: Positional arguments of each task; divided among the producers.
            kwargs: Keyword arguments of every task.

        Raises:
            RuntimeError: A task failed, or answered without a vector.
        """
        parts = [arguments[start :: len(self._children)] for start in range(len(self._children))]
        for process, part in zip(self._children, parts, strict=True):
            job = target | {"arguments": part, "kwargs": kwargs, "window": self._window}
            _pipe(process.stdin).write(json.dumps(job).encode() + b"\n")
            _pipe(process.stdin).flush()
        answers = [json.loads(_pipe(process.stdout).readline()) for process in self._children]
        failures = [failure for answer in answers for failure in answer["failures"]]
        if failures:
            raise RuntimeError(f"{target['task']} failed: {failures[0]}")
        seconds = max(answer["finished"] for answer in answers) - min(answer["started"] for answer in answers)
        return float(sum(answer["done"] for answer in answers) / seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._children:
            _pipe(process.stdin).close()
            process.wait(timeout=30)
            _pipe(process.stdout).close()


def _pipe(pipe: Any) -> Any:
    assert pipe is not None
    return pipe


def single_texts(label: str, count: int) -> list[list[Any]]:
    """Return arguments of single-text tasks: distinct texts of the length of a sentence."""
    return [[text] for text in texts(label, count)]


def texts(label: str, count: int) -> list[str]:
    """Return distinct texts of about a hundred characters; another label gives others."""
    return [_text(label, number) for number in range(count)]


def _text(label: str, number: int) -> str:
    words: Iterable[str] = (_WORDS[(number * 7 + step * step) % len(_WORDS)] for step in range(12))
    return f"{label} {number}: {' '.join(words)}."


_WORDS = [
    "queue",
    "worker",
    "vector",
    "cache",
    "lease",
    "retry",
    "model",
    "stream",
    "shard",
    "batch",
    "index",
    "token",
    "search",
    "broker",
    "thread",
    "signal",
    "window",
    "backlog",
    "deadline",
    "replica",
]
