"""How much is sent: a few hundred of each, or what the environment says (`make fuzz`)."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """Amounts of a run, and the seed that makes it again.

    Attributes:
        requests: HTTP requests.
        messages: Messages of the broker.
        seed: Seed of both.
        timeout: Seconds for each of the two tests.
    """

    requests: int
    messages: int
    seed: int
    timeout: float


def _amounts() -> Amounts:
    requests, messages = (
        int(os.environ.get(f"FUZZ_{name}") or few) for name, few in (("REQUESTS", 400), ("MESSAGES", 600))
    )
    seed = int(os.environ.get("FUZZ_SEED") or 1)
    return Amounts(requests=requests, messages=messages, seed=seed, timeout=120 + max(requests, messages) / 10)


AMOUNTS = _amounts()
