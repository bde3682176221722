"""Record of questions."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson

from tests.doubles.base.recording import Recording
from tests.doubles.llm.requests import ChatRequest

LONGEST = 4000
"""Characters of a prompt that are kept."""


class LlmRecording(Recording):
    """Counts of questions; a prompt is counted when it is received, and again when its answer is complete.

    Args:
        track_prompts: Distinct prompts that are counted one by one.
        journal: File of all arrivals, a line of JSON each: the time in seconds since the epoch, and the prompt.
    """

    def __init__(self, track_prompts: int, journal: str = "") -> None:
        self._track_prompts = track_prompts
        self._journal = Path(journal).open("ab", buffering=0) if journal else None  # noqa: SIM115
        super().__init__()

    def reset(self) -> None:
        """Count from 0; the requests in flight stay in flight."""
        super().reset()
        self.prompts: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()

    def count_received(self, request: ChatRequest) -> None:
        """Count a readable question."""
        self._count(self.prompts, request.prompt)
        if self._journal is not None:
            self._journal.write(orjson.dumps([time.time(), request.prompt[:LONGEST]]) + b"\n")
        messages = [{**message, "content": message["content"][:LONGEST]} for message in request.messages]
        self.recent.append({"messages": messages, **request.payload})

    def count_answered(self, request: ChatRequest) -> None:
        """Count a question that got its whole answer."""
        self._count(self.answered, request.prompt)

    def _count(self, counter: Counter[str], prompt: str) -> None:
        prompt = prompt[:LONGEST]
        if prompt in counter or len(counter) < self._track_prompts:
            counter[prompt] += 1

    def snapshot(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {
            **super().snapshot(),
            "prompt_counts": self.prompts,
            "answered_counts": self.answered,
            "max_prompt_count": max(self.prompts.values(), default=0),
            "max_answered_count": max(self.answered.values(), default=0),
        }
