"""`python -m tests.support.programs.plain_reader URL TASK_ID...`: read how tasks failed, without Citadel.

Prints a JSON list with the class and the words of each.
"""

import json
import sys

from celery import Celery


def main(url: str, *task_ids: str) -> None:
    """Print how the tasks failed."""
    app = Celery("plain", broker=url, backend=url)
    errors = [app.AsyncResult(task_id).get(timeout=60, propagate=False) for task_id in task_ids]
    assert not any(name.startswith("citadel_") for name in sys.modules)
    json.dump([[type(error).__name__, str(error)] for error in errors], sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
