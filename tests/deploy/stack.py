"""The stack of compose.yaml on this machine's engine, without the Internet: its models are files.

CITADEL_REAL_MODEL_FILES names a directory with `all-minilm.gguf`, the real all-MiniLM-L6-v2, and `tiny-llm.gguf`, any
LLM; a small one, because the tests care for its protocol and not for its words.
"""

import json
import os
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from citadel_client import Citadel
from tests.deploy.crash import crash
from tests.deploy.engine import BUILD_SECONDS, ROOT, CommandFailed, docker, inspect, run
from tests.support.child import free_port
from tests.support.polling import eventually
from tests.support.required import lacking

STORES = ("redis", "redis-cache", "postgres")
SERVERS = ("ollama", "qdrant", "tempo")
DOUBLE = "double"
WORKERS = ("embeddings", "orchestration", "monitoring", "maintenance")
OWN = ("api", *WORKERS, "exporter", "beat")
IMAGES = ("embeddings", "orchestration", "monitoring", "maintenance")
OTHERS = ("REDIS", "POSTGRES", "QDRANT", "OLLAMA", "TEMPO", "PROMETHEUS")
EMBEDDING_MODEL, LLM = "all-minilm", "tiny-llm"
LLM_MODELFILE = "FROM ./tiny-llm.gguf\nPARAMETER num_predict 16\n"
LONG = 400.0
"""Seconds for what takes a minute on a machine that is not busy."""


class Stack:
    """A project of containers of its own: its secrets and its plan of processors are in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.project = f"citadel-test-{os.getpid()}"
        self.directory = directory
        self.ports = {name: free_port() for name in ("API", "TEMPO", "PROMETHEUS")}
        self._environment = {
            "CITADEL_PORT": str(self.ports["API"]),
            "CITADEL_TEMPO_PORT": str(self.ports["TEMPO"]),
            "CITADEL_PROMETHEUS_PORT": str(self.ports["PROMETHEUS"]),
            "CITADEL_OTLP_ENDPOINT": "http://tempo:4318",
            "CITADEL_MODELS": "",
            "CITADEL_DEFAULT_MODEL": EMBEDDING_MODEL,
            "CITADEL_LLM_MODEL": LLM,
        } | images()
        self._lay_out()

    def _lay_out(self) -> None:
        lay_out(self.directory, "stack.yaml")
        for name in (EMBEDDING_MODEL, LLM):
            shutil.copy(model_files() / f"{name}.gguf", self.models)
        (self.models / f"{LLM}.modelfile").write_text(LLM_MODELFILE)

    @property
    def secrets(self) -> Path:
        """The directory of its secrets."""
        return self.directory / "compose" / "secrets"

    @property
    def models(self) -> Path:
        """The directory whose files become models."""
        return self.directory / "compose" / "models"

    def secret(self, name: str) -> str:
        """One of them."""
        return (self.secrets / name).read_text().strip()

    def plan(self) -> dict[str, str]:
        """Return the limits of each container, by variable."""
        lines = (self.directory / "compose" / "cpu.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if not line.startswith("#"))

    def compose(self, *arguments: str, timeout: float = LONG) -> str:
        """`docker compose` on the project."""
        files = ("-f", "compose.yaml", "-f", "tests/deploy/stack.yaml")
        command = ("docker", "compose", "-p", self.project, *files, *arguments)
        return run(*command, timeout=timeout, env=self._environment, cwd=self.directory)

    def shell(self, command: str, directory: Path) -> None:
        """Run a command of the documentation, with the variables that select this stack's files and project."""
        command = command.replace("scripts/", f"{ROOT}/scripts/")
        variables = {
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_FILE": f"{self.directory}/compose.yaml:{self.directory}/tests/deploy/stack.yaml",
        }
        run("bash", "-o", "pipefail", "-c", command, timeout=LONG, env=self._environment | variables, cwd=directory)

    def up(self, *arguments: str) -> None:
        """Start what does not run, and wait until all of it is healthy and Ollama has its models."""
        self.compose("up", "--detach", *arguments)
        self.wait_healthy()
        eventually(self.has_models, LONG)

    def has_models(self) -> bool:
        """Return True if the job that gives Ollama its models has succeeded."""
        state = self.containers("ollama-models")[0]["State"]
        return (state["Status"], state["ExitCode"]) == ("exited", 0)

    def wait_healthy(self, *services: str) -> None:
        """Wait until every container of these services, or of all, runs and is healthy where it can tell."""
        eventually(lambda: not self.unwell(*services), timeout=LONG)

    def unwell(self, *services: str) -> dict[str, str]:
        """Containers that should run and do not, or are not healthy."""
        wanted = services or (*STORES, *SERVERS, DOUBLE, *OWN, "prometheus")
        found = {service: self.containers(service) for service in wanted}
        return {service: "none" for service, containers in found.items() if not containers} | {
            container["Name"]: container["State"]["Status"]
            + "/"
            + container["State"].get("Health", {}).get("Status", "")
            for containers in found.values()
            for container in containers
            if not _is_well(container)
        }

    def containers(self, service: str) -> list[dict[str, Any]]:
        """Return the engine's descriptions of the containers of a service, in the order of their numbers."""
        ids = docker(
            "ps",
            "--all",
            "--quiet",
            "--filter",
            f"label=com.docker.compose.project={self.project}",
            "--filter",
            f"label=com.docker.compose.service={service}",
        ).split()
        found = inspect(*ids) if ids else []
        found = [one for one in found if one["Config"]["Labels"].get("com.docker.compose.oneoff") != "True"]
        return sorted(found, key=lambda one: int(one["Config"]["Labels"]["com.docker.compose.container-number"]))

    def spans_of(self, run: str) -> dict[str, set[str]]:
        """Return the services that have spans in the traces of a run, by trace, as Tempo finds them."""
        found = self.search(f'{{ span.citadel.run.id = "{run}" }}')
        return {one["traceID"]: set(one.get("serviceStats", {})) for one in found}

    def search(self, query: str) -> list[dict[str, Any]]:
        """Return the traces that Tempo finds by a TraceQL query."""
        found: list[dict[str, Any]] = self.get("TEMPO", f"/api/search?q={quote(query)}")["traces"]
        return found

    def exec(self, container: dict[str, Any], *command: str) -> str:
        """Run a command inside a container; return its output."""
        return docker("exec", container["Id"], *command)

    def kill(self, container: dict[str, Any]) -> None:
        """End its first process as a crash would."""
        image = f"{self._environment['MAINTENANCE_IMAGE']}:{self._environment['CITADEL_TAG']}"
        crash(container["Id"], image=image)

    def client(self, *, timeout: float = LONG) -> Citadel:
        """Return the SDK's client on the published port, with the operator's key."""
        return Citadel(f"http://127.0.0.1:{self.ports['API']}", self.secret("api_key"), timeout=timeout)

    def get(self, port: str, path: str) -> Any:
        """JSON from a published port."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[port]}{path}", timeout=30) as answer:
            return json.load(answer)

    def remove(self) -> None:
        """All of it, volumes too."""
        self.compose("down", "--volumes", "--timeout", "5", "--remove-orphans")


def lay_out(directory: Path, *overrides: str) -> None:
    """Make the files as a user has them and overrides of the tests, and write the files that `make up` writes first."""
    unwanted = shutil.ignore_patterns("secrets", "cpu.env", "__pycache__", "*.gguf", "*.modelfile")
    shutil.copytree(ROOT / "compose", directory / "compose", ignore=unwanted, symlinks=True)
    shutil.copy(ROOT / "compose.yaml", directory)
    for name in overrides:
        target = directory / "tests" / "deploy" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "tests" / "deploy" / name, target)
    run(sys.executable, str(ROOT / "scripts" / "secrets"), "--directory", str(directory / "compose" / "secrets"))
    run(sys.executable, "-m", "compose.cpu_plan", "--output", str(directory / "compose" / "cpu.env"))


def _is_well(container: dict[str, Any]) -> bool:
    state = container["State"]
    return bool(state["Running"]) and state.get("Health", {}).get("Status", "healthy") == "healthy"


def model_files() -> Path:
    """Return the directory of the models' files; skip without one, fail in CI."""
    named = os.environ.get("CITADEL_REAL_MODEL_FILES")
    if not named or not all((Path(named) / f"{name}.gguf").is_file() for name in (EMBEDDING_MODEL, LLM)):
        lacking(f"CITADEL_REAL_MODEL_FILES names no directory with {EMBEDDING_MODEL}.gguf and {LLM}.gguf")
    return Path(named)


def require_images(*names: str) -> None:
    """Get images of others; skip where one cannot be had, fail in CI."""
    for image in names:
        try:
            docker("image", "inspect", image)
        except CommandFailed:
            try:
                docker("pull", "--quiet", image, timeout=BUILD_SECONDS)
            except CommandFailed:
                lacking(f"the image {image} is not here and cannot be pulled")


def images() -> dict[str, str]:
    """Return the images by variable: those under test, and those of others."""
    found = {"CITADEL_TAG": os.environ.get("CITADEL_TAG", "dev")}
    for line in (ROOT / "compose" / "images.env").read_text().splitlines():
        name, _, value = line.partition("=")
        if name.endswith("_IMAGE"):
            found[name] = os.environ.get(name, value)
    return found


def build(tag: str) -> None:
    """Citadel's four images, and the doubles'."""
    for service in IMAGES:
        arguments = ("--build-arg", f"SERVICE={service}", "--tag", f"citadel-{service}:{tag}")
        docker("build", "--quiet", *arguments, str(ROOT), timeout=BUILD_SECONDS)
    dockerfile = str(ROOT / "tests" / "deploy" / "doubles" / "Dockerfile")
    docker(
        "build", "--quiet", "--file", dockerfile, "--tag", f"citadel-doubles:{tag}", str(ROOT), timeout=BUILD_SECONDS
    )


@contextmanager
def running_stack(directory: Path) -> Iterator[Stack]:
    """Start a stack and wait until it is healthy; remove all of it after the block."""
    require_images(*(images()[f"{name}_IMAGE"] for name in OTHERS))
    stack = Stack(directory)
    build(images()["CITADEL_TAG"])
    try:
        stack.up()
        yield stack
    except BaseException:
        sys.stderr.write(stack.compose("ps", "--all") + stack.compose("logs", "--tail", "15", "--no-color"))
        raise
    finally:
        stack.remove()
