"""The Qdrant double as a child process."""

import json
import os
import subprocess
import sys
from typing import Any

from tests.doubles.process import ROOT, OllamaProcess


class QdrantProcess(OllamaProcess):
    """A running double; its collections live in its memory.

    It is started, switched and stopped as the other doubles are, and dies with this process.
    """

    def __init__(self, *, port: int = 0, api_key: str = "") -> None:
        self._api_key = api_key
        super().__init__(port=port)

    def _start(self) -> None:
        command = [sys.executable, "-m", "tests.doubles.qdrant", f"--port={self.port}", "--exit-with-stdin"]
        self._child = subprocess.Popen(
            [*command, f"--api-key={self._api_key}"],
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

    def stats(self, *, text_counts: bool = False) -> dict[str, Any]:
        """Return the mode in force and how often each route was asked for."""
        del text_counts
        return self._control("GET", "stats")
