"""One LLM endpoint: HTTP calls, bounded in number, time and size."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx
import orjson
import structlog

from citadel_common.deadline import Deadline, cancelled_once
from citadel_common.errors import BadLlmOutput, CitadelError, InvalidInput, LlmUnavailable, PayloadTooLarge
from citadel_common.outages import Outage, Outages
from citadel_common.outbound import Route, client_options, reason, route_to
from citadel_common.settings.llm import EndpointSettings
from citadel_common.telemetry import Metrics, names, tracing
from citadel_contracts.outbound import is_untrusted
from citadel_orchestration.llm.adaptation import MOST_PER_QUESTION, Adaptation, Adaptations, adapted
from citadel_orchestration.llm.answers import Transcript, finish_kind
from citadel_orchestration.llm.answers import name as name_of
from citadel_orchestration.llm.chat_spans import chat_span, note_answer
from citadel_orchestration.llm.cooldown import Cooldown
from citadel_orchestration.llm.frames import Frame, FrameReader, described, drain
from citadel_orchestration.llm.protocols import STYLES
from citadel_orchestration.llm.question import Answer, Piece, Question
from citadel_orchestration.llm.refusals import ServerError, error_in, failure, failure_inside, read_body

log = structlog.get_logger(__name__)
_ERROR_BODY = 64 * 1024
_AWAY = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
_DRAIN = 0.1


class Endpoint:
    """Client of one endpoint; belongs to one event loop and connects at the first question.

    Args:
        name: Name in the settings.
        settings: Settings of this endpoint.
        outages: Where calls wait while the server is away.
        metrics: Where calls are counted.
    """

    def __init__(self, name: str, settings: EndpointSettings, outages: Outages, metrics: Metrics) -> None:
        self._name = name
        self._settings = settings
        self._style = STYLES[settings.style]
        self._where = f"LLM endpoint {name!r}"
        self._slots = asyncio.Semaphore(settings.max_concurrency)
        self._cooldown = Cooldown(self._where)
        self._adaptations = Adaptations()
        self._server = outages.server(f"llm {name}", patience=settings.patience)
        self._metrics = metrics
        self._route = _route(self._style.url(settings.url), settings)
        self._http = _http_client(self._route, settings)

    async def ask(self, question: Question, deadline: Deadline, accepted: Callable[[], None]) -> Answer:
        """Return the model's answer; see `LlmClients.ask`."""
        with chat_span(question, self._settings) as span:
            answer = await self._ask(question, deadline, accepted)
            note_answer(span, answer)
            return answer

    async def _ask(self, question: Question, deadline: Deadline, accepted: Callable[[], None]) -> Answer:
        """Ask; put the question differently where the server says what it does not know."""
        self._check_size(question)
        model = question.model or self._settings.model
        adaptation = self._adaptations.of(model)
        for _ in range(MOST_PER_QUESTION):
            request = self._request(question, adaptation)
            try:
                return await self._call(request, deadline, accepted)
            except _Refused as refused:
                mode = request.settings.json_mode if question.schema is not None else "prompt"
                found = adapted(adaptation, refused.status, refused.reason, request.body, mode)
                if found is None:
                    raise refused.error from None
                adaptation, permanent = found
                log.info("llm_request_adapted", endpoint=self._name, status=refused.status, remembered=permanent)
                if permanent:
                    self._adaptations.remember(model, adaptation)
        return await self._last_call(self._request(question, adaptation), deadline, accepted)

    async def _last_call(self, request: "_Request", deadline: Deadline, accepted: Callable[[], None]) -> Answer:
        try:
            return await self._call(request, deadline, accepted)
        except _Refused as refused:
            raise refused.error from None

    def _check_size(self, question: Question) -> None:
        if question.characters > self._settings.max_prompt_chars:
            raise PayloadTooLarge(
                f"query: {question.characters} characters are more than the {self._settings.max_prompt_chars} "
                f"that {self._where} takes"
            )

    def _request(self, question: Question, adaptation: Adaptation) -> "_Request":
        settings = adaptation.settings(self._settings)
        body = self._style.body(adaptation.question(question), settings)
        try:
            encoded = orjson.dumps(body)
        except TypeError as error:
            raise InvalidInput.at("query", f"it cannot be written as JSON: {error}") from None
        return _Request(
            body=body,
            encoded=encoded,
            settings=settings,
            model=str(body["model"]),
            dropped=adaptation.dropped_of(question),
        )

    async def _call(self, request: "_Request", deadline: Deadline, accepted: Callable[[], None]) -> Answer:
        """Make one call once the endpoint may be called and has a free place; wait while its server is away."""

        async def attempt() -> Answer:
            await self._cooldown.over(deadline)
            async with self._slot(deadline):
                await self._cooldown.over(deadline)
                return await self._counted(request, deadline, accepted)

        return await self._server.call(attempt, deadline)

    async def _counted(self, request: "_Request", deadline: Deadline, accepted: Callable[[], None]) -> Answer:
        """Make one call and count it by its outcome."""
        outcome = "cancelled"
        try:
            answer = await self._bounded(request, deadline, accepted)
            outcome = "ok"
        except (CitadelError, _Refused, Outage) as error:
            failed = error if isinstance(error, CitadelError) else error.error
            outcome = failed.code
            self._cooldown.begin(failed.retry_after or 0.0)
            raise
        finally:
            self._metrics.count(names.LLM_CALLS, endpoint=self._name, outcome=outcome)
        for kind, tokens in (("input", answer.usage.prompt_tokens), ("output", answer.usage.completion_tokens)):
            self._metrics.count(names.LLM_TOKENS, tokens, endpoint=self._name, kind=kind)
        return answer

    async def _bounded(self, request: "_Request", deadline: Deadline, accepted: Callable[[], None]) -> Answer:
        limit = deadline.timeout(self._settings.timeout)
        try:
            async with asyncio.timeout(limit):
                return await cancelled_once(self._exchange(request, accepted))
        except CitadelError as error:
            error.args = (self._route.hidden(error.message),)
            raise
        except TimeoutError:
            raise LlmUnavailable(f"{self._where} did not finish within {limit:.3g} s") from None
        except httpx.HTTPError as error:
            raise self._failure(error) from None

    @contextlib.asynccontextmanager
    async def _slot(self, deadline: Deadline) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(deadline.timeout(math.inf)):
                await self._slots.acquire()
        except TimeoutError:
            raise LlmUnavailable(f"{self._where} was busy with {self._settings.max_concurrency} other calls") from None
        try:
            yield
        finally:
            self._slots.release()

    async def _exchange(self, request: "_Request", accepted: Callable[[], None]) -> Answer:
        transcript = Transcript(self._settings.max_output_bytes)
        async with self._opened(request.encoded) as response:
            if response.status_code != httpx.codes.OK:
                raise await self._refusal(response)
            accepted()
            self._server.answers()
            await self._read(response, transcript, streamed=request.settings.stream)
        transcript.check_end(self._where, hide=self._route.hidden)
        return self._answer(request, transcript)

    @contextlib.asynccontextmanager
    async def _opened(self, body: bytes) -> AsyncIterator[httpx.Response]:
        """Open a call.

        Raises:
            Outage: The server cannot be reached, or went away before it said anything.
        """
        async with contextlib.AsyncExitStack() as stack:
            call = self._http.stream("POST", self._route.url, content=body, headers=tracing.carrier())
            try:
                response = await stack.enter_async_context(call)
            except (
                httpx.ConnectError,
                httpx.ConnectTimeout,
                httpx.ReadError,
                httpx.WriteError,
                httpx.RemoteProtocolError,
            ) as error:
                failed = self._failure(error)
                raise (failed if is_untrusted(error) else Outage(failed)) from None
            yield response

    async def _read(self, response: httpx.Response, transcript: Transcript, *, streamed: bool) -> None:
        """Read the answer, and check that it has come to its end."""
        reader = FrameReader(self._where, transcript.raw_limit)
        async with contextlib.aclosing(reader.frames(response)) as frames:
            async for frame in frames:
                if frame.is_end or transcript.add(self._piece(frame)):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_DRAIN):
                            await drain(frames)
                    return
        if not reader.count:
            raise BadLlmOutput(
                f"{self._where} answered with something that is not a JSON object: {described(reader.stray)}"
            )
        is_whole = transcript.is_whole or (reader.count == 1 and not streamed)
        if transcript.finish_reason is None and not is_whole and not (transcript.is_empty and not reader.stray):
            stray = f", with {described(reader.stray)}" if reader.stray else ""
            raise LlmUnavailable(self._route.hidden(f"{self._where} cut its answer off{stray}"))

    def _piece(self, frame: Frame) -> Piece:
        content = frame.content
        error = error_in(content) if content is not None else None
        if frame.is_error and error is None:
            error = read_body(frame.data)
        if error is not None:
            raise failure_inside(self._where, error, hide=self._route.hidden)
        if content is None:
            raise BadLlmOutput(
                f"{self._where} answered with something that is not a JSON object: {described(frame.data)}"
            )
        return self._style.piece(content)

    def _answer(self, request: "_Request", transcript: Transcript) -> Answer:
        reasoning, text = transcript.answer
        return Answer(
            text=text,
            endpoint=self._name,
            model=name_of(transcript.model or request.model),
            usage=transcript.usage,
            finish_reason=finish_kind(transcript.finish_reason or "stop"),
            reasoning=reasoning,
            tool_calls=tuple(name_of(tool) for tool in transcript.tool_calls),
            dropped_options=request.dropped,
        )

    async def _refusal(self, response: httpx.Response) -> Exception:
        """Return the error that a status means: an outage, a refusal that may be answered, or a plain error."""
        body = bytearray()
        with contextlib.suppress(httpx.HTTPError):
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _ERROR_BODY:
                    break
        status, reason = response.status_code, read_body(bytes(body[:_ERROR_BODY]))
        error = failure(self._where, status, reason, response.headers, hide=self._route.hidden)
        if status in _AWAY and isinstance(error, LlmUnavailable) and error.retry_after is None:
            return Outage(error)
        return _Refused(error, status, reason)

    def _failure(self, error: httpx.HTTPError) -> LlmUnavailable:
        if isinstance(error, httpx.ReadTimeout):
            return LlmUnavailable(f"{self._where} was silent for {self._settings.idle_timeout:.3g} s")
        cause = self._route.hidden(reason(error))
        where = self._where + self._route.by
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            return LlmUnavailable(f"{where} does not answer: {cause}")
        return LlmUnavailable(f"{where} hung up: {cause}")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


class _Refused(Exception):
    """A refusal with its reason."""

    def __init__(self, error: CitadelError, status: int, reason: ServerError) -> None:
        super().__init__(error.message)
        self.error = error
        self.status = status
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class _Request:
    """One request.

    Attributes:
        body: Its fields.
        encoded: The same as bytes.
        settings: Settings that it follows.
        model: The model asked.
        dropped: Options that were left out.
    """

    body: dict[str, Any]
    encoded: bytes
    settings: EndpointSettings
    model: str
    dropped: tuple[str, ...]


def _route(url: str, settings: EndpointSettings) -> Route:
    key = settings.api_key
    return route_to(url, settings, key=("authorization", f"Bearer {key.get_secret_value()}") if key else None)


def _http_client(route: Route, settings: EndpointSettings) -> httpx.AsyncClient:
    silence = settings.idle_timeout if settings.stream else None  # the call's own timeout bounds it
    headers = {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "citadel"}
    return httpx.AsyncClient(
        headers=headers | route.headers,
        timeout=httpx.Timeout(silence, connect=settings.connect_timeout),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=settings.max_concurrency),
        **client_options(route, settings),
    )
