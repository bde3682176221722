"""The Docker engine of this machine."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.support.required import lacking

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120
BUILD_SECONDS = 1200


class CommandFailed(AssertionError):
    """A command ended with another status than 0."""


def program(name: str) -> str:
    """Return the text of a program of tests/deploy/programs, to run it where that folder is not: in a container."""
    return (Path(__file__).parent / "programs" / f"{name}.py").read_text(encoding="utf-8")


def run(*command: str, timeout: float = SECONDS, env: dict[str, str] | None = None, cwd: Path = ROOT) -> str:
    """Run a command; return its output.

    Raises:
        CommandFailed: It ended with another status than 0.
    """
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, cwd=cwd, env=os.environ | (env or {})
    )
    if done.returncode != 0:
        raise CommandFailed(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def docker(*arguments: str, timeout: float = SECONDS) -> str:
    """Run a Docker command; return its output."""
    return run("docker", *arguments, timeout=timeout)


def inspect(*names: str) -> list[dict[str, Any]]:
    """Return the engine's descriptions of containers or images."""
    found: list[dict[str, Any]] = json.loads(docker("inspect", *names))
    return found


def require_engine(*, running: bool = True) -> None:
    """Skip without Docker and Compose, or without an engine that runs; fail in CI."""
    reason = _missing(running=running)
    if reason is not None:
        lacking(reason)


def _missing(*, running: bool) -> str | None:
    if shutil.which("docker") is None:
        return "docker is not installed"
    commands = {"Docker has no Compose": ["docker", "compose", "version"]}
    if running:
        commands["no Docker engine answers"] = ["docker", "info"]
    for reason, command in commands.items():
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return reason
        if done.returncode != 0:
            return reason
    return None
