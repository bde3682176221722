"""All LLM endpoints of a process."""

from citadel_common.deadline import Deadline
from citadel_common.errors import InvalidInput
from citadel_common.settings.llm import LlmSettings
from citadel_orchestration.llm.directory import Directory
from citadel_orchestration.llm.endpoint import Endpoint
from citadel_orchestration.llm.question import RESERVED_OPTIONS, Answer, Question


class LlmClients:
    """Asks the configured endpoints, and no others; belongs to one event loop."""

    def __init__(self, settings: LlmSettings) -> None:
        self._directory = Directory(settings)
        self._open: dict[str, Endpoint] = {}

    def endpoint_problem(self, name: str | None) -> str | None:
        """Why an endpoint (a name, a configured URL, None for the default) cannot be used; None when it can."""
        return self._directory.problem(name)

    async def ask(self, endpoint: str | None, question: Question, deadline: Deadline) -> Answer:
        """The model's answer; cancelling closes the connection at once.

        Waits for a free place where the endpoint has `max_concurrency` calls under way. Nothing is retried here.

        Args:
            endpoint: A name, or a configured URL; None for the default.
            question: What to ask.
            deadline: When the call must have ended; the endpoint's own `timeout` may end it earlier.

        Raises:
            InvalidInput: No such endpoint, a reserved option, or what JSON cannot hold.
            PayloadTooLarge: The question is over the endpoint's limit.
            LlmUnavailable: No answer: nobody listens, too slow, cut off, or the server failed. Another attempt may
                succeed; `retry_after` says when.
            LlmRefused: The server refuses: model, key, options.
            BadLlmOutput: The answer cannot be read, or is too long.
            DeadlineExceeded: No time was left to begin.
        """
        name = self._directory.find(endpoint)
        reserved = sorted(RESERVED_OPTIONS & question.options.keys())
        if reserved:
            raise InvalidInput.at("options", f"{', '.join(reserved)} cannot be set here")
        if name not in self._open:
            self._open[name] = Endpoint(name, self._directory[name])
        return await self._open[name].ask(question, deadline)

    async def aclose(self) -> None:
        """Closes all connections."""
        endpoints, self._open = list(self._open.values()), {}
        for endpoint in endpoints:
            await endpoint.aclose()
