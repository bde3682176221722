"""Reading of Redis URLs, once for redis-py, kombu and Celery's result backend, which read them differently.

`redis://`, `rediss://` (TLS), `unix://` and `redis+socket://` (a Unix socket), `sentinel://` and `sentinels://` (TLS),
the latter two with several servers: `sentinel://a:26379;b:26379/0` or with the scheme before each of them.
"""

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

SCHEMES = ("redis", "rediss", "sentinel", "sentinels", "unix", "redis+socket")
PORT, SENTINEL_PORT, LARGEST_PORT = 6379, 26379, 65535
MUST = f"must start with one of {', '.join(f'{scheme}://' for scheme in SCHEMES)}"
ENCODE = "write special characters of user and password as percent-codes (/ as %2F), or use the setting of the password"
CERTIFICATES: Mapping[str, ssl.VerifyMode] = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PLACE = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\[\]:@\s]*)(?::(?P<port>\d{0,5}))?")
_NAME = re.compile(r"[a-z_]{1,40}")


@dataclass(frozen=True, kw_only=True)
class RedisAddress:
    """A Redis, as a URL describes it.

    Attributes:
        servers: Host and port of the server, or of each sentinel; empty for a Unix socket.
        path: Path of the Unix socket, or empty.
        is_sentinel: Whether the servers are sentinels, which know the address of the Redis.
        username: User of an access control list; None for the default user.
        password: Its password.
        database: Number of the database.
        tls: Redis-py's `ssl_…` arguments; None without TLS.
        options: Redis-py's arguments that the URL sets, such as `socket_timeout`.
        master: Name of the master that the sentinels watch, where the URL gives it.
    """

    servers: tuple[tuple[str, int], ...] = ()
    path: str = ""
    is_sentinel: bool = False
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    master: str | None = None

    @property
    def celery_url(self) -> str:
        """The URL for kombu and Celery, which get everything but place, credentials and database otherwise."""
        user = ":".join(quote(part or "", safe="") for part in (self.username, self.password))
        user = "" if user == ":" else f"{user}@"
        if self.path:
            return f"redis+socket://{user}{quote(self.path)}?virtual_host={self.database}"
        scheme = "sentinel" if self.is_sentinel else "redis" if self.tls is None else "rediss"
        return ";".join(f"{scheme}://{user}{_place(*server)}/{self.database}" for server in self.servers)


def redis_address(url: str) -> RedisAddress:
    """Return the address in a URL.

    Raises:
        ValueError: No client could use it; the message shows no secret.
    """
    found = _SCHEME.match(url)
    if found is None or found[1] not in SCHEMES:
        raise ValueError(MUST)
    scheme, rest = found[1], url[found.end() :]
    place, _, query = _without_repeated_schemes(rest, scheme).partition("?")
    parameters = _parameters(query, ENCODE if "@" in query and "@" not in place else "")
    if scheme in ("unix", "redis+socket"):
        return _of_socket(place, parameters)
    authority, _, path = place.partition("/")
    user, host = _split_at(authority)
    _refuse_loose(user, path)
    username, password = _credentials(user, parameters)
    separator = re.compile(r"[;,]") if scheme.startswith("sentinel") else re.compile(r"(?!)")
    default = SENTINEL_PORT if scheme.startswith("sentinel") else PORT
    return RedisAddress(
        servers=tuple(_server(part, default) for part in separator.split(host)),
        is_sentinel=scheme.startswith("sentinel"),
        master=parameters.pop("master_name", None),
        database=_database(path.strip("/"), parameters),
        tls=_tls(parameters, required=scheme in ("rediss", "sentinels"), allowed=scheme != "redis"),
        username=username,
        password=password,
        options=_options(parameters),
    )


def _without_repeated_schemes(rest: str, scheme: str) -> str:
    """Join the URLs of sentinels: the first one's user counts, and the database may stand after any of them."""
    if not scheme.startswith("sentinel") or ";" not in rest:
        return rest
    first, *others = rest.split(";")
    hosts, path, query = [], "", ""
    for part in (first, *(_SCHEME.sub("", other, count=1) for other in others)):
        place, _, parameters = part.partition("?")
        host, slash, database = place.partition("/")
        path, query = (f"/{database}" if slash and database else path), parameters or query
        hosts.append(host if part is first else host.rpartition("@")[2])
    return f"{';'.join(hosts)}{path}" + (f"?{query}" if query else "")


def _of_socket(place: str, parameters: dict[str, str]) -> RedisAddress:
    user, _, path = ("", "", place[1:]) if place.startswith("/") else place.partition("@/")
    if not path:
        raise ValueError("has no absolute path to a Unix socket, as in unix:///run/redis/redis.sock?db=0")
    _refuse_loose(user, "")
    username, password = _credentials(user, parameters)
    return RedisAddress(
        path=f"/{unquote(path)}",
        database=_database("", parameters),
        tls=_tls(parameters, required=False, allowed=False),
        username=username,
        password=password,
        options=_options(parameters),
    )


def _split_at(authority: str) -> tuple[str, str]:
    user, _, host = authority.rpartition("@")
    return user, host


def _refuse_loose(user: str, path: str) -> None:
    """Refuse what a password with unquoted characters leaves in the path."""
    if "@" in path:
        raise ValueError(f"has an @ after the host; {ENCODE}")
    if "#" in path or "#" in user:
        raise ValueError(f"holds a # as it is; {ENCODE}")
    if _BAD_ESCAPE.search(user):
        raise ValueError(f"holds a % that begins no percent-code; {ENCODE}")


def _server(text: str, default: int) -> tuple[str, int]:
    found = _PLACE.fullmatch(text)
    if found is None or "#" in text or int(found["port"] or 1) not in range(1, LARGEST_PORT + 1):
        raise ValueError(f"has no readable host and port; {ENCODE}")
    return unquote(found["host"].strip("[]")) or "localhost", int(found["port"] or default)


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _database(path: str, parameters: dict[str, str]) -> int:
    given = (path, parameters.pop("db", ""), parameters.pop("virtual_host", "").strip("/"))
    named = [value for value in given if value]
    if any(not value.isdecimal() or not value.isascii() for value in named):
        raise ValueError("the database must be a number, as in redis://host:6379/0")
    if len({int(value) for value in named}) > 1:
        raise ValueError("names two different databases, in the path and in the query")
    return int(named[0]) if named else 0


def _credentials(user: str, parameters: dict[str, str]) -> tuple[str | None, str | None]:
    name, _, password = user.partition(":")
    in_query = parameters.pop("username", None), parameters.pop("password", None)
    return unquote(name) or in_query[0], unquote(password) or in_query[1]


def _parameters(query: str, hint: str) -> dict[str, str]:
    """Return the query's parameters, all of which must be known."""
    pairs = parse_qsl(query, keep_blank_values=True)
    unknown = [name for name, _ in pairs if name not in KNOWN]
    if unknown and (hint or not _NAME.fullmatch(unknown[0])):
        raise ValueError(f"cannot be read; {ENCODE}")
    if unknown:
        raise ValueError(f"has an unknown parameter {unknown[0]}; known are {', '.join(sorted(KNOWN))}")
    return {name: value for name, value in pairs if value}


def _tls(parameters: dict[str, str], *, required: bool, allowed: bool) -> Mapping[str, Any] | None:
    given = {name: parameters.pop(name) for name in TLS if name in parameters}
    if given and not required and not allowed:
        raise ValueError("has ssl_ parameters without TLS: write rediss:// for TLS")
    if not given and not required:
        return None
    found = {name: TLS[name](name, value) for name, value in given.items()}
    if "ssl_keyfile" in found and "ssl_certfile" not in found:
        raise ValueError("has ssl_keyfile without ssl_certfile")
    verifies = found.setdefault("ssl_cert_reqs", ssl.CERT_REQUIRED) != ssl.CERT_NONE
    found["ssl_check_hostname"] = verifies and found.get("ssl_check_hostname", True)
    return found


def _options(parameters: dict[str, str]) -> dict[str, Any]:
    return {name: OPTIONS[name](name, value) for name, value in parameters.items()}


def _certificates(name: str, value: str) -> ssl.VerifyMode:
    found = CERTIFICATES.get(value.lower().removeprefix("ssl.").removeprefix("cert_"))
    if found is None:
        raise ValueError(f"{name} must be CERT_REQUIRED, CERT_OPTIONAL or CERT_NONE")
    return found


def _file(name: str, value: str) -> str:
    """Return the path of a file; Celery's own way is to quote it twice."""
    path = value if Path(value).exists() else unquote(value)
    if not Path(path).exists():
        raise ValueError(f"{name}: there is no file {path}")
    return path


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{name} must be a number of seconds above 0")
    return seconds


def _truth(name: str, value: str) -> bool:
    if value.lower() not in ("true", "yes", "1", "false", "no", "0"):
        raise ValueError(f"{name} must be true or false")
    return value.lower() in ("true", "yes", "1")


def _text(_: str, value: str) -> str:
    return value


Reader = Callable[[str, str], Any]
TLS: Mapping[str, Reader] = {
    "ssl_cert_reqs": _certificates,
    "ssl_ca_certs": _file,
    "ssl_ca_path": _file,
    "ssl_certfile": _file,
    "ssl_keyfile": _file,
    "ssl_password": _text,
    "ssl_check_hostname": _truth,
    "ssl_ciphers": _text,
}
OPTIONS: Mapping[str, Reader] = {
    "socket_timeout": _seconds,
    "socket_connect_timeout": _seconds,
    "socket_keepalive": _truth,
    "health_check_interval": _seconds,
    "client_name": _text,
}
KNOWN = frozenset(
    {*TLS, *OPTIONS, "db", "virtual_host", "username", "password", "master_name"},
)
