"""The unit files of systemd/, read as systemd does: each with its drop-ins in the order of their names."""

import re
from pathlib import Path

from citadel_contracts import Queue

SYSTEMD = Path(__file__).resolve().parents[3] / "systemd"
UNITS = SYSTEMD / "units"
NEWER = SYSTEMD / "units-254"
WORKERS = {queue.value: f"citadel-worker@{queue.value}.service" for queue in Queue}
SERVICES = (
    "citadel-migrate.service",
    "citadel-api.service",
    "citadel-beat.service",
    "citadel-exporter.service",
    *WORKERS.values(),
)
Directives = dict[str, list[str]]


def drop_ins_of_the_guide() -> dict[str, str]:
    """Return the drop-ins that systemd/README.md shows, by path."""
    guide = (SYSTEMD / "README.md").read_text(encoding="utf-8")
    return dict(re.findall(r"cat >(/etc/systemd/\S+) <<'END'\n(.*?)END\n", guide, re.DOTALL))


def directives(unit: str) -> Directives:
    """Return all values of each `Section.Name`, the unit's own first."""
    found: Directives = {}
    for file in files(unit):
        section = ""
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif "=" in line and not line.startswith("#"):
                name, value = line.split("=", 1)
                found.setdefault(f"{section}.{name}", []).append(value)
    return found


def files(unit: str) -> list[Path]:
    """Return the unit's file and its drop-ins."""
    own = UNITS / unit if (UNITS / unit).exists() else UNITS / re.sub("@.*", "@.service", unit)
    folders = [UNITS / "citadel-.service.d"] if unit.endswith(".service") else []
    drop_ins = [file for folder in [*folders, UNITS / f"{unit}.d"] for file in folder.glob("*.conf")]
    return [own, *sorted(drop_ins, key=lambda file: file.name)]


def last(found: Directives, name: str) -> str:
    """Return the effective value of a directive of [Service]."""
    return found[f"Service.{name}"][-1]


def environment(unit: str) -> dict[str, str]:
    """Return the variables that a unit sets."""
    lines = directives(unit).get("Service.Environment", [])
    return dict(word.split("=", 1) for line in lines for word in line.split())


def cores(cpuset: str) -> set[int]:
    """Return the numbers in a range such as `0-1,4`."""
    ends = [part.split("-") for part in cpuset.split(",")]
    return {number for pair in ends for number in range(int(pair[0]), int(pair[-1]) + 1)}
