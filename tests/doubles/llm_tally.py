"""What the LLM double has seen, for tests to assert on. Everything it keeps is bounded."""

from collections import Counter, deque
from typing import Any

from tests.doubles.caller import Scope
from tests.doubles.llm_calls import ChatCall

RECENT = 200
LONGEST = 4000


class LlmTally:
    """Counts of questions; a prompt is counted when it is received, and again when its answer is complete."""

    def __init__(self, track_prompts: int) -> None:
        self._track = track_prompts
        self.in_flight = 0
        self.reset()

    def reset(self) -> None:
        """Count from 0; the requests in flight stay in flight."""
        self.requests = 0
        self.abandoned = 0
        self.hung_up = 0
        self.max_in_flight = self.in_flight
        self.other_requests: Counter[str] = Counter()
        self.paths: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.prompts: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self.last_headers: dict[str, str] = {}

    def began(self, scope: Scope) -> None:
        """Count a question's arrival."""
        self.requests += 1
        self.paths[scope["path"]] += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        self.last_headers = {str(name, "latin-1"): str(value, "latin-1") for name, value in scope["headers"]}

    def ended(self) -> None:
        """Count a question's end."""
        self.in_flight -= 1

    def received(self, call: ChatCall) -> None:
        """Count a readable question."""
        self._count(self.prompts, call.prompt)
        messages = [{**message, "content": message["content"][:LONGEST]} for message in call.messages]
        self.recent.append({"messages": messages, **call.payload})

    def answered_call(self, call: ChatCall) -> None:
        """Count a question that got its whole answer."""
        self._count(self.answered, call.prompt)

    def _count(self, counter: Counter[str], prompt: str) -> None:
        prompt = prompt[:LONGEST]
        if prompt in counter or len(counter) < self._track:
            counter[prompt] += 1

    def snapshot(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        numbers = ("requests", "in_flight", "max_in_flight", "abandoned", "hung_up")
        return {
            **{name: getattr(self, name) for name in numbers},
            "other_requests": self.other_requests,
            "paths": self.paths,
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "prompt_counts": self.prompts,
            "answered_counts": self.answered,
            "max_prompt_count": max(self.prompts.values(), default=0),
            "max_answered_count": max(self.answered.values(), default=0),
            "recent": list(self.recent),
            "last_headers": self.last_headers,
        }
