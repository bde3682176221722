"""Writes the dashboards' JSON files; with `--check`, reports files that are out of date."""

import json
import sys
from pathlib import Path

from compose.observability.dashboards import dead_letters, embeddings, hosts, overview, workflows
from compose.observability.dashboards.panels import Dashboard, render

FOLDER = Path(__file__).parent.parent / "grafana" / "dashboards"
ALL = (overview.PAGE, embeddings.PAGE, workflows.PAGE, hosts.PAGE, dead_letters.PAGE)


def text(dashboard: Dashboard) -> str:
    """Return the content of the dashboard's file."""
    return json.dumps(render(dashboard), indent=2) + "\n"


def path(dashboard: Dashboard) -> Path:
    """Return the path of the dashboard's file."""
    return FOLDER / f"{dashboard.uid}.json"


def main(arguments: list[str]) -> int:
    """Write or check the files; return the exit status."""
    if "--check" not in arguments:
        for page in ALL:
            path(page).write_text(text(page))
        return 0
    stale = [page for page in ALL if not path(page).exists() or path(page).read_text() != text(page)]
    for page in stale:
        sys.stderr.write(f"{path(page).name} is out of date: run `python -m compose.observability.dashboards`\n")
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
