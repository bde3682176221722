"""A host with systemd, Redis and PostgreSQL: a container that boots."""

import functools
import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.deploy.engine import BUILD_SECONDS, ROOT, CommandFailed, docker
from tests.support.polling import eventually

IMAGE = "citadel-host-test:dev"
COMMAND = "/src/systemd/citadel-host"
LONG = 180.0
"""Seconds a start, or a restart after its pause, may take on a busy machine."""
QUEUES = ("embeddings", "orchestration", "monitoring", "maintenance")
WORKERS = tuple(f"citadel-worker@{queue}.service" for queue in QUEUES)
SERVICES = ("citadel-api.service", "citadel-beat.service", "citadel-exporter.service", *WORKERS)
PASSWORD = "a password that no log may show"
# What systemd needs of an engine without --privileged. Mounts are shared as on a host, or no credential is seen.
BOOT = (
    *("--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN", "--cap-add=SYS_NICE", "--cap-add=SYS_PTRACE"),
    *("--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"),
    *("--tmpfs=/run", "--tmpfs=/run/lock", "--cgroupns=host", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw"),
    *(
        "--sysctl=net.ipv6.conf.all.disable_ipv6=0",
        "--env=container=docker",
        "--env=SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
    ),
)
INIT = ("sh", "-c", "mount --make-rshared / && exec /sbin/init")
PIP = ("PIP_INDEX_URL", "PIP_CERT", "HTTPS_PROXY", "NO_PROXY")


class Host:
    """The container."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, *command: str, timeout: float = LONG) -> str:
        """Run a command of the host, which must succeed; return its output."""
        passed = [f"--env={name}" for name in PIP if name in os.environ]
        return docker("exec", *passed, self.name, *command, timeout=timeout)

    def sh(self, script: str) -> str:
        """Run a script in the host's shell, which must succeed; return its output."""
        return self.run("bash", "-euc", script)

    def succeeds(self, *command: str) -> bool:
        """Return True if a command succeeds."""
        try:
            self.run(*command)
        except CommandFailed:
            return False
        return True

    def write(self, path: str, text: str, mode: str = "600") -> None:
        """Make a file."""
        self.run("bash", "-euc", 'install -D -m "$2" /dev/stdin "$0" <<<"$1"', path, text, mode)

    def citadel_host(self, *arguments: str) -> str:
        """Run the checkout's `citadel-host`."""
        return self.run(COMMAND, *arguments, timeout=BUILD_SECONDS)

    def of(self, unit: str) -> dict[str, str]:
        """Return the properties of a unit."""
        lines = self.run("systemctl", "show", unit).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def pid(self, unit: str) -> int:
        """Return the id of a service's main process; 0 when it has none."""
        return int(self.of(unit)["MainPID"])

    def is_well(self, unit: str) -> bool:
        """Return True if a service has reported that it works."""
        found = self.of(unit)
        return (found["ActiveState"], found["SubState"]) == ("active", "running")

    def wait_well(self, *units: str) -> None:
        """Wait for services."""
        for unit in units or SERVICES:
            eventually(lambda unit=unit: self.is_well(unit), LONG)

    def journal(self, unit: str) -> list[dict[str, Any]]:
        """Return the journal of a unit: the lines of its processes and of the manager."""
        lines = self.run("journalctl", "--no-pager", "--output=json", f"--unit={unit}").splitlines()
        return [json.loads(line) for line in lines]

    def lines(self, unit: str) -> list[str]:
        """Return the lines of the processes of a unit."""
        return [str(entry["MESSAGE"]) for entry in self.journal(unit) if entry.get("_TRANSPORT") == "stdout"]

    def embed(self, text: str) -> list[float]:
        """Ask the API for a vector and return it."""
        body = json.dumps({"model": "all-minilm", "input": text})
        answer = json.loads(self.post("/v1/embeddings", body))
        vector: list[float] = answer["data"][0]["embedding"]
        return vector

    def post(self, path: str, body: str) -> str:
        """Return the API's answer, which must be a success."""
        header = "content-type: application/json"
        url = f"http://127.0.0.1:8080{path}"
        return self.run("curl", "-sS", "--fail-with-body", "-m", "60", "-H", header, "-d", body, url)

    def get(self, url: str) -> str:
        """Return an answer over HTTP, which must be a success."""
        return self.run("curl", "-sS", "--fail-with-body", "-m", "60", url)


def from_the_guide(file: str) -> str:
    """Return the text of a file that systemd/README.md tells its readers to write."""
    guide = (ROOT / "systemd/README.md").read_text(encoding="utf-8")
    found = re.search(rf"cat >{re.escape(file)} <<'END'\n(.*?)END\n", guide, re.DOTALL)
    assert found, file
    return found.group(1)


@contextmanager
def booted_host() -> Iterator[Host]:
    """Boot a host with an empty database and without Citadel."""
    docker("build", "--quiet", f"--tag={IMAGE}", str(ROOT / "tests/deploy/systemd"), timeout=BUILD_SECONDS)
    host = Host(f"citadel-host-test-{uuid.uuid4().hex[:8]}")
    docker("run", "--detach", f"--name={host.name}", *BOOT, f"--volume={ROOT}:/src:ro", IMAGE, *INIT)
    try:
        for unit in ("redis-server", "postgresql@17-main"):  # `is-active` succeeds for several if one of them is
            eventually(functools.partial(host.succeeds, "systemctl", "is-active", unit), LONG)
        role = f"create role citadel login password '{PASSWORD}'"
        host.sh(f'su postgres -c "psql -qc \\"{role}\\" -c \\"create database citadel owner citadel\\""')
        yield host
    finally:
        docker("rm", "--force", "--volumes", host.name)


@contextmanager
def drop_in(host: Host, unit: str, text: str) -> Iterator[None]:
    """Change settings of a unit's [Service] for the block; they hold from its next start on."""
    file = f"/run/systemd/system/{unit}.d/99-test.conf"
    host.write(file, f"[Service]\n{text}\n", "644")
    host.run("systemctl", "daemon-reload")
    try:
        yield
    finally:
        host.run("rm", file)
        host.run("systemctl", "daemon-reload")
