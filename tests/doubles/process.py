"""Doubles as child processes, for tests and benchmarks."""

import contextlib
import http.client
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from tests.doubles.base.settings import arguments
from tests.doubles.llm.settings import LlmSettings
from tests.doubles.ollama.settings import OllamaSettings
from tests.doubles.qdrant.settings import QdrantSettings

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0


class DoubleFailedError(RuntimeError):
    """The double did not start, or refused a control request."""


class DoubleProcess:
    """A running double; it dies with this process, however this one ends: its standard input closes then.

    Args:
        port: Port to listen on; 0 lets the system choose.
        settings: Fields of the double's settings.
    """

    MODULE: ClassVar[str]
    SETTINGS: ClassVar[type]

    def __init__(self, *, port: int = 0, **settings: Any) -> None:
        self._arguments = arguments(self.SETTINGS(**settings))
        self.port = port
        self._start()

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    def _start(self) -> None:
        command = [sys.executable, "-m", self.MODULE, f"--port={self.port}", "--exit-with-stdin"]
        self._child = subprocess.Popen(
            [*command, *self._arguments],
            cwd=ROOT,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            self.port = json.loads(self._first_line())["port"]
        except BaseException:
            self.kill()
            raise

    def _first_line(self) -> bytes:
        assert self._child.stdout is not None
        readable, _, _ = select.select([self._child.stdout], [], [], START_TIMEOUT_S)
        line = self._child.stdout.readline() if readable else b""
        if not line:
            raise DoubleFailedError(f"no word within {START_TIMEOUT_S} s, exit code {self._child.poll()}")
        return line

    def behaviour(self, mode: str = "ok", **parameters: Any) -> dict[str, Any]:
        """Switch the behaviour; see the double's `behaviour.py`."""
        return self._control("POST", "behaviour", {"mode": mode, **parameters})

    def stats(self, *, text_counts: bool = True) -> dict[str, Any]:
        """Return the record of requests; counts by text are large after a benchmark."""
        return self._control("GET", f"stats?text_counts={int(text_counts)}")

    def reset(self) -> None:
        """Make it healthy, with nothing counted and nothing kept."""
        self._control("POST", "reset")

    def _control(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, f"/_double/{path}", None if body is None else json.dumps(body))
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise DoubleFailedError(answer["error"])
        return answer  # type: ignore[no-any-return]

    def stop(self) -> None:
        """End it politely: what it is answering may take another second."""
        self._child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(STOP_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """End it at once, connections and all; harmless when it has ended."""
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()

    def restart_same_port(self) -> None:
        """Start it again where it was, with nothing counted; kills it first where it still runs."""
        self.kill()
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class OllamaProcess(DoubleProcess):
    """A running double of Ollama."""

    MODULE = "tests.doubles.ollama"
    SETTINGS = OllamaSettings


class LlmProcess(DoubleProcess):
    """A running LLM double."""

    MODULE = "tests.doubles.llm"
    SETTINGS = LlmSettings

    def script(self, *answers: str | dict[str, Any]) -> None:
        """Give it its next answers, one per question in order of arrival: texts, or `text`, `mode`, `finish_reason`."""
        self._control("POST", "script", {"answers": list(answers)})

    def release(self, count: int) -> None:
        """Let so many questions of the mode `held` be answered."""
        self._control("POST", "release", {"count": count})


class QdrantProcess(DoubleProcess):
    """A running double of Qdrant; its collections live in its memory."""

    MODULE = "tests.doubles.qdrant"
    SETTINGS = QdrantSettings
