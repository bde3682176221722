"""The embeddings worker, whose tasks count as stuck after HARD_LIMIT_S: `python -m` with this module."""

from citadel_contracts import TASKS
from citadel_embeddings.worker import main

HARD_LIMIT_S = 1.0

if __name__ == "__main__":
    for spec in TASKS:
        object.__setattr__(spec, "hard_limit", HARD_LIMIT_S)
    main()
