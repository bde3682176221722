"""Perform flows: one driver that blocks, one that awaits."""

import asyncio
import ipaddress
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, TypedDict, TypeVar, cast

import httpx

from citadel_client.errors import CitadelApiError
from citadel_client.feeds import CONNECT_TIMEOUT_S, Feed
from citadel_client.flow import Flow, Pause, Send

T = TypeVar("T")


class ClientOptions(TypedDict):
    """What both of httpx's clients are made with."""

    base_url: str
    headers: dict[str, str]
    trust_env: bool


def client_options(base_url: str, api_key: str | None) -> ClientOptions:
    """Options for httpx; a server on this machine is never asked through a proxy.

    Raises:
        ValueError: The URL is not one of a web server.
    """
    url = httpx.URL(base_url)
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"{base_url!r} is not the URL of a server; it looks like http://127.0.0.1:8080")
    headers = {"Accept": "application/json, application/problem+json"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    return {"base_url": base_url, "headers": headers, "trust_env": not _on_this_machine(url.host)}


def _on_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _arguments(send: Send) -> dict[str, Any]:
    return {
        "method": send.method,
        "url": send.path,
        "content": send.content,
        "headers": {"Content-Type": send.content_type} if send.content is not None else {},
        "timeout": httpx.Timeout(send.timeout, connect=min(CONNECT_TIMEOUT_S, send.timeout)),
    }


class SyncDriver:
    """Performs flows by blocking; threads may share it."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def run(self, flow: Flow[T]) -> T:
        """Run a flow to its end."""
        try:
            effect = next(flow)
            while True:
                effect = self._step(flow, effect)
        except StopIteration as done:
            return cast("T", done.value)

    def _step(self, flow: Flow[T], effect: Send | Pause) -> Send | Pause:
        if isinstance(effect, Pause):
            time.sleep(effect.seconds)
            return next(flow)
        try:
            response = self.client.request(**_arguments(effect))
        except httpx.TransportError as error:
            return flow.throw(error)
        return flow.send(response)

    def items(self, feed: Feed[T]) -> Iterator[T]:
        """Everything that a feed brings, connected again where it breaks off."""
        while not feed.ended:
            try:
                yield from self._connection(feed)
            except (httpx.TransportError, CitadelApiError) as broken:
                time.sleep(feed.pause_after(broken))

    def _connection(self, feed: Feed[T]) -> Iterator[T]:
        with self.client.stream("GET", feed.path, headers=feed.headers(), timeout=feed.timeouts()) as response:
            if not response.is_success:
                response.read()
            feed.opened(response)
            for piece in response.iter_bytes():
                yield from feed.take(piece)
                if feed.ended:
                    return
            yield from feed.finish()


class AsyncDriver:
    """Performs flows by awaiting."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def run(self, flow: Flow[T]) -> T:
        """Run a flow to its end."""
        reply, broken = None, None
        while True:
            try:
                effect = flow.throw(broken) if broken else flow.send(reply)
            except StopIteration as done:
                return cast("T", done.value)
            reply, broken = await self._perform(effect)

    async def _perform(self, effect: Send | Pause) -> tuple[httpx.Response | None, httpx.TransportError | None]:
        if isinstance(effect, Pause):
            await asyncio.sleep(effect.seconds)
            return None, None
        try:
            return await self.client.request(**_arguments(effect)), None
        except httpx.TransportError as error:
            return None, error

    async def items(self, feed: Feed[T]) -> AsyncIterator[T]:
        """Everything that a feed brings, connected again where it breaks off."""
        while not feed.ended:
            try:
                async with aclosing(self._connection(feed)) as found:
                    async for item in found:
                        yield item
            except (httpx.TransportError, CitadelApiError) as broken:
                await asyncio.sleep(feed.pause_after(broken))

    async def _connection(self, feed: Feed[T]) -> AsyncGenerator[T, None]:
        options: dict[str, Any] = {"headers": feed.headers(), "timeout": feed.timeouts()}
        async with self.client.stream("GET", feed.path, **options) as response:
            if not response.is_success:
                await response.aread()
            feed.opened(response)
            async for piece in response.aiter_bytes():
                for item in feed.take(piece):
                    yield item
                if feed.ended:
                    return
            for item in feed.finish():
                yield item
