"""Reading of PostgreSQL's DSNs. What no server could accept is refused here, in words that show no secret."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

SCHEMES = ("postgresql", "postgres")
MUST = "must start with postgresql://, or be key=value pairs"
ENCODE = "write special characters of user and password as percent-codes (@ as %40), or use the setting of the password"
FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir", "passfile")
NUMBERS = ("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count")
CHOICES: Mapping[str, tuple[str, ...]] = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "load_balance_hosts": ("disable", "random"),
}
LARGEST_PORT = 65535
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NAME = re.compile(r"[a-z_]{1,40}")
_SETTING = re.compile(r"-c\s*([A-Za-z_][\w.]*)=(.*)|--([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)


def parameters_of(dsn: str) -> dict[str, str]:
    """Return libpq's parameters in a URL or in `key=value` pairs.

    Raises:
        ValueError: PostgreSQL's client could not use them; the message shows no secret.
    """
    _check_form(dsn)
    try:
        found = {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value not in (None, "")}
    except (psycopg.Error, ValueError):  # libpq's message repeats parts of the DSN
        raise ValueError(_diagnosis(dsn)) from None
    _check_place(dsn, found)
    _check_values(found)
    return found


def settings_in(options: str) -> tuple[dict[str, str], str]:
    """Split libpq's `options` into server settings (`-c name=value`, `--name=value`) and the other words.

    Settings are made by SQL: connection poolers refuse the start-up parameter that carries them.

    Raises:
        ValueError: A quotation or an escape is not ended.
    """
    words, settings, others = _words(options), {}, []
    for word in words:
        found = _SETTING.fullmatch(word)
        if found is None:
            others.append(word)
        else:
            settings[(found[1] or found[3]).replace("-", "_")] = found[2] if found[1] else found[4]
    return settings, " ".join(others)


def _words(options: str) -> list[str]:
    """Return the words of `options`: spaces separate them, a backslash takes the next character as it is."""
    lexer = shlex.shlex(options, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.quotes, lexer.commenters = True, "", ""
    words: list[str] = []
    for word in lexer:
        if words and words[-1] == "-c":
            words[-1] = f"-c{word}"
        else:
            words.append(word)
    return words


def _check_form(dsn: str) -> None:
    scheme = _SCHEME.match(dsn)
    if scheme is None and "=" not in dsn:
        raise ValueError(MUST)
    if scheme is not None and scheme[1] not in SCHEMES:
        driver = scheme[1].partition("+")[0] in SCHEMES
        raise ValueError(f"{MUST}; the driver in the scheme is not written" if driver else MUST)


def _diagnosis(dsn: str) -> str:
    if _SCHEME.match(dsn) is None:
        return "cannot be read as key=value pairs: values with spaces stand between ', and ' and \\ after a \\"
    if _BAD_ESCAPE.search(dsn):
        return f"holds a % that begins no percent-code; {ENCODE}"
    unknown = [] if "@" in dsn.partition("?")[2] else _unknown(dsn)
    if unknown:
        return f"has an unknown parameter {unknown[0]}; see libpq's parameter key words"
    return f"cannot be read; {ENCODE}"


def _unknown(dsn: str) -> list[str]:
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()} | {"ssl"}
    names = (pair.partition("=")[0] for pair in dsn.partition("?")[2].split("&"))
    return [name for name in names if name not in known and _NAME.fullmatch(name)]


def _check_place(dsn: str, found: Mapping[str, str]) -> None:
    """Refuse what a password with unquoted characters makes of host, port and database."""
    if _SCHEME.match(dsn) and _has_a_stray_at(dsn.partition("://")[2].partition("?")[0]):
        raise ValueError(f"has an @ too many; {ENCODE}")
    ports, hosts = found.get("port", "").split(","), (found.get("hostaddr") or found.get("host", "")).split(",")
    if not all(port == "" or (port.isdecimal() and 0 < int(port) <= LARGEST_PORT) for port in ports):
        raise ValueError(f"has a port that is no number from 1 to {LARGEST_PORT}; {ENCODE}")
    if len(ports) > 1 and len(ports) != len(hosts):
        raise ValueError(f"has {len(ports)} ports for {len(hosts)} hosts; give one port for all, or one for each")


def _has_a_stray_at(place: str) -> bool:
    """Return whether an @ stands after the one that ends user and password, which libpq takes for the first."""
    head = re.split(r"[@/]", place, maxsplit=1)[0]
    return "@" in place[len(head) + 1 :]


def _check_values(found: Mapping[str, str]) -> None:
    for name, choices in CHOICES.items():
        if found.get(name, choices[0]) not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}")
    for name in NUMBERS:
        if not found.get(name, "0").strip().lstrip("-").isdecimal():
            raise ValueError(f"{name} must be a whole number")
    for name in FILES:
        if name in found and found[name] != "system" and not Path(found[name]).exists():
            raise ValueError(f"{name}: there is no file {found[name]}")
    settings_in(found.get("options", ""))
