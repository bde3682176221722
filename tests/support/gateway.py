"""A gateway in front of a server: routes below a path of its own, and credentials that it demands."""

import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.doubles.base.server import ServerThread
from tests.support.private_ca import Certificate, PrivateAuthority

Message = MutableMapping[str, Any]
HOP_BY_HOP = {b"connection", b"content-length", b"transfer-encoding", b"host"}


@dataclass(kw_only=True)
class Gateway:
    """An ASGI application that passes calls below `mount` on to `target`, and refuses all others.

    Attributes:
        target: Base URL of the server behind it.
        mount: Path that clients call; 404 elsewhere.
        credentials: `user:password` that it demands; empty for none.
        headers: Headers that it demands.
        calls: Method and path with query of each call, in order.
        last_headers: Headers of the last call.
    """

    target: str
    mount: str = ""
    credentials: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    last_headers: dict[str, str] = field(default_factory=dict)

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Serve one call."""
        query = scope["query_string"].decode()
        path = scope["path"] + (f"?{query}" if query else "")
        self.calls.append(f"{scope['method']} {path}")
        self.last_headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        if refusal := self._refusal(scope["path"]):
            await _answer(send, refusal, [], b'{"error": {"message": "refused by the gateway"}}')
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        await self._pass_on(scope, scope["path"].removeprefix(self.mount), body, send)

    def _refusal(self, path: str) -> int:
        wanted = dict(self.headers)
        if self.credentials:
            wanted["authorization"] = f"Basic {b64encode(self.credentials.encode()).decode()}"
        if any(self.last_headers.get(name) != value for name, value in wanted.items()):
            return 401
        return 0 if path.startswith(f"{self.mount}/") else 404

    async def _pass_on(
        self, scope: Message, path: str, body: bytes, send: Callable[[Message], Awaitable[None]]
    ) -> None:
        dropped = HOP_BY_HOP | ({b"authorization"} if self.credentials else set())
        headers = [(name, value) for name, value in scope["headers"] if name not in dropped]
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            answer = await client.request(scope["method"], self.target + path, content=body, headers=headers)
        kept = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() not in HOP_BY_HOP]
        await _answer(send, answer.status_code, kept, answer.content)


async def _answer(
    send: Callable[[Message], Awaitable[None]], status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def gateway(
    target: str,
    *,
    certificate: Certificate | None = None,
    clients: PrivateAuthority | None = None,
    host: str = "127.0.0.1",
    **options: Any,
) -> Iterator[tuple[str, Gateway]]:
    """Run a gateway in a thread; yield its URL, path included, and itself.

    Args:
        target: Base URL of the server behind it.
        certificate: Speaks TLS with this certificate.
        clients: Demands a certificate that this authority has signed.
        host: Name under which the URL speaks of it.
        options: Fields of Gateway.
    """
    app = Gateway(target=target, **options)
    tls: dict[str, Any] = {}
    if certificate is not None:
        tls = {"ssl_certfile": str(certificate.file), "ssl_keyfile": str(certificate.key)}
    if clients is not None:
        tls |= {"ssl_ca_certs": str(clients.file), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    server = ServerThread(app, **tls)  # type: ignore[arg-type]
    try:
        yield f"http{'s' if tls else ''}://{host}:{server.port}{app.mount}", app
    finally:
        server.stop()
