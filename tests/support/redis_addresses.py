"""Real Redis servers behind every kind of address: a Unix socket, TLS, users, IPv6, sentinels."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import redis

from tests.support.child import free_port, spawn
from tests.support.planted import planted
from tests.support.polling import eventually
from tests.support.private_ca import PrivateAuthority
from tests.support.redis_server import redis_binary
from tests.support.required import lacking

USER, PASSWORD = "citadel", f"{planted('redis-user')}@:/#%?&"
CODED = quote(PASSWORD, safe="")
RIGHTS = "~* &* -@all +@connection +@read +@write +@pubsub +@scripting +@transaction -@dangerous +select +info +time"
"""What Citadel needs of a user, as docs/stores.md has it."""


def tls_binary() -> str:
    """Return the path of a Redis server that speaks TLS; the embedded one does not."""
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            said = subprocess.run([path, "--tls-port", "x"], capture_output=True, text=True, timeout=30, check=False)
            if "Bad directive" not in said.stdout + said.stderr:
                return path
    return lacking("no redis-server with TLS on PATH; Debian's package redis-server has it")


@contextlib.contextmanager
def serving(binary: str, *lines: str, answers: Callable[[int, Path], "redis.Redis"]) -> Iterator[tuple[int, Path]]:
    """Run a server with lines of its configuration, in which {port} and {folder} are filled; give both."""
    with tempfile.TemporaryDirectory(prefix="citadel-redis-") as name:
        # the bus of a cluster has the port 10,000 above
        folder, port = Path(name), next(port for port in iter(free_port, None) if port <= 55_535)
        folder.chmod(0o755)
        configuration = [f"dir {folder}", 'save ""', *lines]
        (folder / "conf").write_text("\n".join(configuration).format(port=port, folder=folder) + "\n")
        with (folder / "log").open("ab") as log:
            mode = ["--sentinel"] if any(line.startswith("sentinel ") for line in lines) else []
            child = spawn([binary, str(folder / "conf"), *mode], output=log, env=os.environ)
        try:
            if not eventually(lambda: _pings(answers(port, folder)) or child.poll() is not None) or child.poll():
                raise RuntimeError((folder / "log").read_text())
            yield port, folder
        finally:
            child.kill()
            child.wait()


def _pings(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.exceptions.AuthenticationError:
        return True
    except redis.RedisError:
        return False
    finally:
        client.close()


def _plain(port: int, _: Path) -> "redis.Redis":
    return redis.Redis(host="127.0.0.1", port=port)


def _binary() -> str:
    return redis_binary() or lacking("no redis-server")


@contextlib.contextmanager
def unix_socket() -> Iterator[str]:
    """Give the URL of a server on a Unix socket, with a password and a database of its own."""
    lines = ("port 0", "unixsocket {folder}/redis.sock", f'requirepass "{PASSWORD}"')
    client: Callable[[int, Path], redis.Redis] = lambda _, folder: redis.Redis(unix_socket_path=f"{folder}/redis.sock")  # noqa: E731
    with serving(_binary(), *lines, answers=client) as (_, folder):
        yield f"unix://{folder}/redis.sock?db=3&password={CODED}"


@contextlib.contextmanager
def limited_user(rights: str = RIGHTS) -> Iterator[str]:
    """Give the URL of a server for a user with Citadel's rights and no more; the default user is off."""
    lines = ("port {port}", "bind 127.0.0.1", f'user {USER} on ">{PASSWORD}" {rights}', "user default off")
    with serving(_binary(), *lines, answers=_plain) as (port, _):
        yield f"redis://{USER}:{CODED}@127.0.0.1:{port}/2"


@contextlib.contextmanager
def ipv6() -> Iterator[str]:
    """Give the URL of a server on IPv6's loopback."""
    if not Path("/proc/net/if_inet6").exists() or not Path("/proc/net/if_inet6").read_text():
        lacking("this machine has no IPv6")
    lines = ("port {port}", "bind ::1", f'requirepass "{PASSWORD}"')
    with serving(_binary(), *lines, answers=lambda port, _: redis.Redis(host="::1", port=port)) as (port, _):
        yield f"redis://:{CODED}@[::1]:{port}/1"


@contextlib.contextmanager
def mutual_tls() -> Iterator[str]:
    """Give the URL of a server that asks for a client's certificate, all of a private authority."""
    binary = tls_binary()
    with tempfile.TemporaryDirectory(prefix="citadel-ca-") as name:
        authority = PrivateAuthority(Path(name))
        server, client = authority.sign("127.0.0.1"), authority.sign("citadel")
        lines = (
            "port 0",
            "tls-port {port}",
            "bind 127.0.0.1",
            f"tls-cert-file {server.file}",
            f"tls-key-file {server.key}",
            f"tls-ca-cert-file {authority.file}",
            f'requirepass "{PASSWORD}"',
        )
        query = f"ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={quote(str(authority.file), safe='')}"
        query += f"&ssl_certfile={client.file}&ssl_keyfile={client.key}"

        def answers(port: int, _: Path) -> "redis.Redis":
            files = {"ssl_ca_certs": str(authority.file), "ssl_certfile": str(client.file)}
            return redis.Redis(host="127.0.0.1", port=port, ssl=True, ssl_keyfile=str(client.key), **files)

        with serving(binary, *lines, answers=answers) as (port, _):
            yield f"rediss://:{CODED}@127.0.0.1:{port}/1?{query}"


@contextlib.contextmanager
def sentinel() -> Iterator[str]:
    """Give the URL of two sentinels, of which the first is dead, and the master behind them."""
    master = ("port {port}", "bind 127.0.0.1", f'requirepass "{PASSWORD}"')
    with serving(_binary(), *master, answers=_plain) as (port, _):
        watching = (
            "port {port}",
            "bind 127.0.0.1",
            f"sentinel monitor main 127.0.0.1 {port} 1",
            f'sentinel auth-pass main "{PASSWORD}"',
        )
        with serving(_binary(), *watching, answers=_plain) as (watcher, _):
            yield f"sentinel://:{CODED}@127.0.0.1:{free_port()};127.0.0.1:{watcher}/1?master_name=main"


@contextlib.contextmanager
def tls_sentinel() -> Iterator[str]:
    """Give the URL of a sentinel and a master that both speak TLS only."""
    binary = tls_binary()
    with tempfile.TemporaryDirectory(prefix="citadel-ca-") as name:
        authority = PrivateAuthority(Path(name))
        server = authority.sign("127.0.0.1")
        tls = (
            "port 0",
            "tls-port {port}",
            "bind 127.0.0.1",
            f"tls-cert-file {server.file}",
            f"tls-key-file {server.key}",
            f"tls-ca-cert-file {authority.file}",
            "tls-auth-clients no",
            "tls-replication yes",
        )

        def answers(port: int, _: Path) -> "redis.Redis":
            return redis.Redis(host="127.0.0.1", port=port, ssl=True, ssl_ca_certs=str(authority.file))

        with serving(binary, *tls, f'requirepass "{PASSWORD}"', answers=answers) as (port, _):
            watching = (f"sentinel monitor main 127.0.0.1 {port} 1", f'sentinel auth-pass main "{PASSWORD}"')
            with serving(binary, *tls, *watching, answers=answers) as (watcher, _):
                query = f"master_name=main&ssl_ca_certs={authority.file}"
                yield f"sentinels://:{CODED}@127.0.0.1:{watcher}/1?{query}"


ADDRESSES = {
    "unix socket": unix_socket,
    "user": limited_user,
    "ipv6": ipv6,
    "mutual tls": mutual_tls,
    "sentinel": sentinel,
    "tls sentinel": tls_sentinel,
}
