"""The LLM double as a child process, for tests and benchmarks."""

import json
import subprocess
import sys
from typing import Any

from tests.doubles.llm_settings import LlmDoubleSettings
from tests.doubles.process import ROOT, OllamaProcess


class LlmProcess(OllamaProcess):
    """A running LLM double; takes the fields of `LlmDoubleSettings`, and a port (0: the system chooses).

    `behaviour`, `stats`, `reset`, `stop`, `kill` and `restart_same_port` are those of `OllamaProcess`; the modes are
    in `tests.doubles.llm_behaviour`, and what it says to a prompt in `tests.doubles.llm_calls`.
    """

    def __init__(self, *, port: int = 0, **settings: Any) -> None:
        self.llm_settings = LlmDoubleSettings(**settings)
        self.port = port
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", "tests.doubles.llm", f"--port={self.port}", "--exit-with-stdin"]
        self._child = subprocess.Popen(
            [*command, *self.llm_settings.arguments()], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            self.port = json.loads(self._first_line())["port"]
        except BaseException:
            self.kill()
            raise

    def script(self, *answers: str | dict[str, Any]) -> None:
        """Say these next, one per question, in order of arrival: texts, or `text`, `mode` and `finish_reason`."""
        self._control("POST", "script", {"answers": list(answers)})

    def stats(self, *, text_counts: bool = True) -> dict[str, Any]:
        """Return what the double has seen; see `tests.doubles.llm_tally`."""
        del text_counts
        return self._control("GET", "stats")
