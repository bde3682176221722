"""The results: a file and a table."""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.bench import stack
from tests.bench.figure import Figure
from tests.bench.processes import ROOT
from tests.bench.scale import Scale

PATH = ROOT / "bench-results" / "latest.json"
PACKAGES = ("celery", "kombu", "redis", "hiredis", "httpx", "orjson", "numpy", "pydantic", "uvicorn", "gunicorn")


def document(figures: list[Figure], scale: Scale, seconds: float) -> dict[str, Any]:
    """Return the content of the results file."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds),
        "quick": scale.quick,
        "machine": _machine(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "settings": scale.as_json() | {"backend": stack.BACKEND, "worker_concurrency": stack.CONCURRENCY},
        "figures": [figure.as_json() for figure in figures],
    }


def write(content: dict[str, Any], path: Path = PATH) -> None:
    """Write the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def table(figures: list[Figure]) -> str:
    """Return the figures as a table."""
    rows = [("figure", "value", "baseline", "", "ratio", "min – max")]
    rows += [_row(figure) for figure in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(figure: Figure) -> tuple[str, str, str, str, str, str]:
    spread = f"{min(figure.ratios):.2f} – {max(figure.ratios):.2f}" if figure.ratios else ""
    return (
        figure.name,
        f"{figure.value:,.1f} {figure.unit}",
        f"{figure.baseline_value:,.1f} {figure.unit}",
        figure.baseline,
        f"{figure.ratio:.2f}",
        spread,
    )


def _machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "load_at_end": [round(load, 2) for load in os.getloadavg()],
        "executable": Path(sys.executable).name,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
