"""A Celery client on a machine without Citadel: `python -m tests.support.programs.foreign_client BROKER_URL`.

Prints whether a good task succeeded, then class and message of the error of a bad one.
"""

import sys

from celery import Celery

if __name__ == "__main__":
    sys.modules["citadel_common"] = sys.modules["citadel_contracts"] = sys.modules["citadel_embeddings"] = None
    app = Celery(broker=sys.argv[1], backend=sys.argv[1])
    print(app.send_task("generate_embedding", ["a"], queue="embeddings").get(timeout=60)["success"])
    try:
        app.send_task("generate_embedding", [""], queue="embeddings").get(timeout=60)
    except Exception as error:  # noqa: BLE001 - its class is known to the worker only
        print(type(error).__name__, error)
