"""`python -m compose.cpu_plan`: prints the plan for this host and writes it to `compose/cpu.env`."""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from compose.cpu_plan.budget import GROUPS
from compose.cpu_plan.plan import Share, plan, variables

ENV_FILE = Path(__file__).resolve().parents[1] / "cpu.env"
DOCKER_TIMEOUT_S = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Print and write the plan; return the exit status, 2 for more cores than the host has."""
    parser = argparse.ArgumentParser(prog="python -m compose.cpu_plan", description=__doc__)
    parser.add_argument("--cpus", type=int, help="cores to use; default: all cores of the host")
    parser.add_argument("--show", action="store_true", help="only print; --cpus may then be any number")
    parser.add_argument("--output", type=Path, default=ENV_FILE, help="file to write")
    given = parser.parse_args(arguments)
    host = given.cpus if given.show and given.cpus else host_cores()
    cores = host if given.cpus is None else given.cpus
    if not 1 <= cores <= host:
        sys.stderr.write(f"cpu-plan: --cpus {cores} is out of range: this host has {host} cores\n")
        return 2
    shares = plan(cores)
    sys.stdout.write(table(shares, cores))
    if not given.show:
        write(given.output, shares, cores)
        sys.stdout.write(f"\nwritten to {given.output}\n")
    return 0


def host_cores() -> int:
    """Return the cores of the machine that runs the containers; Docker may run in a virtual machine."""
    docker = shutil.which("docker")
    if docker is None:
        return os.cpu_count() or 1
    try:
        done = subprocess.run(  # noqa: S603  (a program found on the path, fixed arguments)
            [docker, "info", "--format", "{{.NCPU}}"],
            capture_output=True,
            text=True,
            timeout=DOCKER_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return os.cpu_count() or 1
    answer = done.stdout.strip()
    return int(answer) if answer.isdecimal() and int(answer) > 0 else os.cpu_count() or 1


def table(shares: Sequence[Share], cores: int) -> str:
    """Return the plan as a table for people."""
    lines = [f"{cores} core{'s' if cores > 1 else ''}", ""]
    for group in GROUPS:
        own = [share for share in shares if share.container.group == group.name]
        lines.append(f"{group.name}: {own[0].cpuset}  ({group.reason})")
        lines.extend(_line(share) for share in own)
    return "\n".join(lines) + "\n"


def _line(share: Share) -> str:
    container = share.container
    derived = f"   {container.concurrency}={share.concurrency}" if container.concurrency else ""
    return f"  {container.service:<16}{share.limit:>6g}{derived}"


def write(path: Path, shares: list[Share], cores: int) -> None:
    """Write the plan as a file of variables, which replaces an earlier one atomically."""
    lines = [f"# The plan for {cores} cores, written by `make cpu-plan`."]
    lines += [f"{name}={value}" for name, value in variables(shares).items()]
    fresh = path.with_suffix(".new")
    fresh.write_text("\n".join(lines) + "\n", encoding="utf-8")
    fresh.replace(path)


if __name__ == "__main__":
    sys.exit(main())
