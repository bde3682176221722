"""Settings that all servers have in common that Citadel calls over HTTP."""

import re
import ssl
from collections.abc import Iterable
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, FilePath, SecretStr, model_validator

from citadel_common.settings.common import Fragment
from citadel_contracts.outbound import proxy_url

DIRECT = "none"
_NAME = re.compile(r"[a-z0-9-]+")
_OURS = frozenset({"host", "connection", "content-length", "content-type", "transfer-encoding"})


def _header_safe(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not (text and text.isascii() and text.isprintable()):
        raise ValueError("must be printable ASCII")
    return value


def _named_headers(given: dict[str, SecretStr]) -> dict[str, SecretStr]:
    """Return the headers by their names in lower case; `_`, which variables need, stands for `-`."""
    headers = {name.lower().replace("_", "-"): _header_safe(value) for name, value in given.items()}
    for name in headers:
        if not _NAME.fullmatch(name) or name in _OURS:
            raise ValueError(f"{name!r} is not a header that can be set")
    return headers


def _usable_proxy(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    return value if text == DIRECT else SecretStr(proxy_url(text))


ApiKey = Annotated[SecretStr, AfterValidator(_header_safe)]


class ServerSettings(Fragment):
    """How servers are reached: headers, certificates, proxy."""

    headers: Annotated[dict[str, SecretStr], AfterValidator(_named_headers)] = Field(
        default_factory=dict,
        description="Further headers of every call, such as `…HEADERS__API_KEY` for Azure's api-key",
    )
    ca_file: FilePath | None = Field(
        None, description="The only certificates to trust (PEM); default: public ones, SSL_CERT_FILE, SSL_CERT_DIR"
    )
    cert_file: FilePath | None = Field(
        None, description="Client certificate (PEM), with its key unless KEY_FILE has it"
    )
    key_file: FilePath | None = Field(None, description="Key of the client certificate (PEM)")
    proxy: Annotated[SecretStr, AfterValidator(_usable_proxy)] | None = Field(
        None, description="Proxy; `none`: no proxy; default: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY"
    )

    @model_validator(mode="after")
    def _certificates_load(self) -> "ServerSettings":
        if self.ca_file or self.cert_file:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            for name, load in (("ca_file", self._load_authorities), ("cert_file", self.load_client_certificate)):
                try:
                    load(context)
                except OSError as error:
                    words = "no usable PEM" if isinstance(error, ssl.SSLError) else error.strerror
                    raise ValueError(f"{name}: {words}") from None
        return self

    def _load_authorities(self, context: ssl.SSLContext) -> None:
        if self.ca_file:
            context.load_verify_locations(cafile=self.ca_file)

    def check_authorization(self, urls: Iterable[str], api_key: SecretStr | None) -> None:
        """Check that at most one of key, header and URL says who calls: there is one `Authorization` in a call.

        Raises:
            ValueError: Several of them do.
        """
        has_user = any("@" in urlsplit(url).netloc for url in urls)
        if [api_key is not None, "authorization" in self.headers, has_user].count(True) > 1:
            raise ValueError("api_key, a user in the URL and an authorization header exclude each other: set one")

    def load_client_certificate(self, context: ssl.SSLContext) -> None:
        """Let a context present the client certificate, if there is one."""
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file, password=lambda: "")
