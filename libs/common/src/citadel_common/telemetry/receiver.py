"""The exporter for the receiver of spans that the standard `OTEL_*` variables name.

Its calls take the same way as all others of Citadel: credentials of the URL, proxies and certificates of the
environment, and bounds on what a receiver may answer.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import structlog
from opentelemetry.sdk.trace.export import SpanExporter

from citadel_common.outbound import Route, public_context, route_to
from citadel_common.settings.server import ServerSettings
from citadel_contracts.base_urls import http_url

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Exporter:
    """An exporter of spans.

    Attributes:
        spans: Sends them.
        take_rejected: Return how many spans of the last request the receiver took and rejected.
        failure: Return why the last request failed; None if that is not known.
    """

    spans: SpanExporter
    take_rejected: Callable[[], int] = lambda: 0
    failure: Callable[[], str | None] = lambda: None


def span_exporter() -> Exporter | None:
    """Return the exporter; None if the environment names no receiver, or one that cannot be used, which is logged."""
    environment = os.environ
    off = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if off or environment.get("OTEL_TRACES_EXPORTER", "otlp").strip() == "none" or not _either("ENDPOINT"):
        return None
    protocol = _either("PROTOCOL") or "http/protobuf"
    if protocol not in _MAKERS:
        log.error("traces_off", reason=f"OTEL_EXPORTER_OTLP_PROTOCOL must be one of {', '.join(_MAKERS)}")
        return None
    try:
        return _MAKERS[protocol]()
    except (ValueError, OSError) as error:
        log.error("traces_off", reason=str(error))
        return None


def _over_http() -> Exporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    from citadel_common.telemetry.http_adapter import HttpAdapter

    settings = _settings()
    traces = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    endpoint = traces or f"{os.environ['OTEL_EXPORTER_OTLP_ENDPOINT'].rstrip('/')}/v1/traces"
    route = _route(endpoint, settings)
    adapter = HttpAdapter(route, settings)
    return Exporter(
        spans=OTLPSpanExporter(endpoint=route.url, session=adapter.session()),
        take_rejected=adapter.take_rejected,
        failure=lambda: adapter.failure,
    )


def _over_grpc() -> Exporter:
    import grpc  # type: ignore[import-untyped]
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    endpoint = _either("ENDPOINT")
    if "://" not in endpoint:  # gRPC's own names, such as unix:/socket or host:4317, have neither credentials nor proxy
        return Exporter(spans=OTLPSpanExporter())
    settings = _settings()
    route = _route(endpoint, settings)
    credentials = None
    if route.url.startswith("https:") and settings.ca_file is None and _names_certificates(os.environ):
        credentials = grpc.ssl_channel_credentials(root_certificates=_trusted_pem())
    options = ("grpc.http_proxy", route.proxy) if route.proxy else ("grpc.enable_http_proxy", 0)
    return Exporter(
        spans=OTLPSpanExporter(
            endpoint=route.url,
            credentials=credentials,
            headers=_headers(route),
            channel_options=cast("Any", (options,)),
        )
    )


_MAKERS: Mapping[str, Callable[[], Exporter]] = {"http/protobuf": _over_http, "grpc": _over_grpc}


def _route(endpoint: str, settings: ServerSettings) -> Route:
    try:
        return route_to(http_url(endpoint), settings)
    except ValueError as error:
        raise ValueError(f"OTEL_EXPORTER_OTLP_ENDPOINT {error}") from None


def _settings() -> ServerSettings:
    """Return the certificates that the standard variables name."""
    files = {"ca_file": "CERTIFICATE", "cert_file": "CLIENT_CERTIFICATE", "key_file": "CLIENT_KEY"}
    return ServerSettings.model_validate({field: _either(name) or None for field, name in files.items()})


def _headers(route: Route) -> dict[str, str] | None:
    """Return the headers of gRPC calls: those of the variables, and the URL's credentials; None for none."""
    from opentelemetry.util.re import parse_env_headers

    return {**parse_env_headers(_either("HEADERS"), liberal=True), **route.headers} or None


def _names_certificates(environment: Mapping[str, str]) -> bool:
    return bool(environment.get("SSL_CERT_FILE") or environment.get("SSL_CERT_DIR"))


def _trusted_pem() -> bytes:
    import ssl

    found = public_context().get_ca_certs(binary_form=True)
    return "".join(map(ssl.DER_cert_to_PEM_cert, found)).encode()


def _either(name: str) -> str:
    """Return the variable for traces, or else that for all signals."""
    return os.environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}", "")
