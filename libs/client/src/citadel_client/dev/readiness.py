"""Waiting until the stack is ready."""

import time
from collections.abc import Callable, Sequence

import httpx

from citadel_client import NEVER, Citadel
from citadel_client.dev.child import Child, describe
from citadel_client.dev.errors import StartFailed
from citadel_client.errors import CitadelApiError, NotAuthorized

POLL_S = 0.1
PROBE_TIMEOUT_S = 10.0
PATIENCE_S = 15.0
"""Seconds that optional components may take longer than required ones."""
LATE = frozenset({"monitoring_workers", "maintenance_workers"})
"""Components that start only when the API is ready."""
DEATHS_ALLOWED = 3
EX_CONFIG = 78


class ApiReadiness:
    """Check that the API answers and that the components it needs are up."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, trust_env=False, timeout=PROBE_TIMEOUT_S)
        self._citadel = Citadel(url, timeout=PROBE_TIMEOUT_S, retry=NEVER)
        self._degraded_since: float | None = None
        self.waiting_for = "the API to answer"
        self.missing: list[str] = []

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        self._citadel.close()

    def ready(self) -> bool:
        """Check once and return whether the API is ready."""
        try:
            return self._probe()
        except httpx.TransportError:
            self.waiting_for = "the API to answer"
        except NotAuthorized:
            return True
        except CitadelApiError as error:
            self.waiting_for = str(error)
        return False

    def _probe(self) -> bool:
        answer = self._http.get("/readyz")
        if not answer.is_success:
            self.waiting_for = f"the API to be ready: {answer.text[:500]}"
            return False
        health = self._citadel.health()
        down = {name: part for name, part in health.components.items() if part.status == "down" and name not in LATE}
        self.missing = [f"{name} ({part.detail})" for name, part in down.items()]
        self.waiting_for = f"what is down: {', '.join(self.missing)}"
        if not down:
            return True
        return not any(part.required for part in down.values()) and self._patience_is_over()

    def _patience_is_over(self) -> bool:
        now = time.monotonic()
        self._degraded_since = self._degraded_since or now
        return now - self._degraded_since > PATIENCE_S


def wait(children: Sequence[Child], ready: Callable[[], bool], waiting_for: Callable[[], str], timeout: float) -> None:
    """Wait until `ready` returns true.

    Raises:
        StartFailed: A child does not start, or the timeout has passed.
    """
    deadline = time.monotonic() + timeout
    while not ready():
        for child in children:
            _check_not_dying(child)
        if time.monotonic() > deadline:
            tails = "\n".join(f"--- {child.spec.name}\n{child.log.tail(5)}" for child in children)
            raise StartFailed(f"not ready after {timeout:g} s, waiting for {waiting_for()}", tails)
        time.sleep(POLL_S)


def _check_not_dying(child: Child) -> None:
    codes = child.exit_codes
    if EX_CONFIG in codes or len(codes) >= DEATHS_ALLOWED:
        reason = f"{child.spec.name} does not start ({describe(codes[-1])}); its log, {child.log.path}, ends with:"
        raise StartFailed(reason, child.log.tail())
