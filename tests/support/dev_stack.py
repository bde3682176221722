"""`citadel dev` as a process of a test."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.disclosure import DISCLOSURES
from tests.support.exports import exports
from tests.support.polling import eventually as eventually_within

START_S = 150.0
STOP_S = 60.0
eventually = partial(eventually_within, timeout=START_S)
"""Wait as long as a start may take."""


@dataclass
class Dev:
    """A running `citadel dev`."""

    process: subprocess.Popen[str]
    home: Path
    errors: Path

    @property
    def env(self) -> dict[str, str]:
        """The variables of its env file; none while it is not there."""
        try:
            words = shlex.split((self.home / "env").read_text())
        except FileNotFoundError:
            return {}
        return dict(word.split("=", 1) for word in words)

    @property
    def pids(self) -> dict[str, int]:
        """The ids of its child processes by name."""
        pairs = (pair.split(":") for pair in self.env.get("CITADEL_PIDS", "").split())
        return {name: int(pid) for name, pid in pairs}

    def ready(self) -> dict[str, str]:
        """Wait until it is ready; return its variables."""

        def look() -> dict[str, str]:
            assert self.process.poll() is None, self.errors.read_text()
            return self.env

        return eventually(look)

    def search(self, secrets: set[str]) -> None:
        """Search its output and its children's logs for secrets."""
        for log in [self.errors, *(self.home / "logs").glob("**/*")]:
            if log.is_file():
                DISCLOSURES.search(f"{log.name} of citadel dev", log.read_bytes(), secrets=secrets)

    @property
    def passwords(self) -> set[str]:
        """The passwords that it has generated, while they are known."""
        return {password for url in self.env.values() if "://" in url and (password := urlsplit(url).password)}

    def stop(self, number: int) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_S)


@contextmanager
def dev(home: Path, *options: str, ready: bool = True) -> Iterator[Dev]:
    """Run `citadel dev` in a home; give it when it is ready, unless told not to wait."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CITADEL_")} | exports()
    errors = home.with_name(home.name + ".errors")
    command = [sys.executable, "-m", "citadel_client", "dev", "--home", str(home), *options]
    with (
        errors.open("a") as file,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=file, text=True) as process,
    ):
        started = Dev(process, home, errors)
        passwords: set[str] = set()
        try:
            if ready:
                started.ready()
            passwords |= started.passwords
            yield started
        finally:
            passwords |= started.passwords
            if process.poll() is None:
                started.stop(signal.SIGTERM)
            started.search(passwords)
