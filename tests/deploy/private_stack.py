"""A stack behind nginx whose servers are on other hosts, with certificates of an authority that nobody knows."""

import os
import re
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.deploy.engine import BUILD_SECONDS, ROOT, CommandFailed, docker, run
from tests.deploy.guide import override_of
from tests.deploy.stack import LONG, build, images, lay_out, require_images
from tests.support.child import free_port
from tests.support.private_ca import PrivateAuthority

SERVERS = tuple(f"{name}.private.test" for name in ("redis", "cache", "postgres", "ollama", "llm", "qdrant", "otlp"))
EXTERNAL = ("ollama", "llm", "qdrant", "otlp", "postgres", "redis")
FILES = ("compose.yaml", "compose/proxy.yaml", *(f"compose/external/{name}.yaml" for name in EXTERNAL))
OWN = ("api", "embeddings", "orchestration", "proxy", "tls")
MODEL, LLM = "nomic-embed-text", "large"
PLAIN = {
    "CITADEL_BROKER_URL": "redis://redis.private.test:6379/0",
    "CITADEL_CACHE_URL": "redis://cache.private.test:6379/0",
    "CITADEL_POSTGRES_DSN": "postgresql://citadel@postgres.private.test:5432/citadel",
}
"""The stores without TLS."""
PRIVATE = {
    "CITADEL_BROKER_URL": "rediss://redis.private.test:6380/0",
    "CITADEL_CACHE_URL": "rediss://cache.private.test:6380/0",
    "CITADEL_POSTGRES_DSN": "postgresql://citadel@postgres.private.test:5432/citadel?sslmode=verify-full",
}
"""The stores with TLS and with certificates that have to be right."""


class PrivateStack:
    """The project. Its stores speak plainly, and it trusts no private authority, until `trust` says so."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.project = f"citadel-private-{os.getpid()}"
        self.port = free_port()
        lay_out(directory, "private.yaml", "nginx/tls.conf")
        (directory / "authority").mkdir()
        self.authority = PrivateAuthority(directory / "authority")
        self._sign()
        secrets = directory / "compose" / "secrets"
        self.key = (secrets / "api_key").read_text().strip()
        self._environment = images() | {
            "NGINX_IMAGE": nginx(),
            "CITADEL_TLS_PORT": str(self.port),
            "CITADEL_OLLAMA_URLS": "https://ollama.private.test:8443",
            "CITADEL_LLM_URL": "https://llm.private.test:8443/v1",
            "CITADEL_LLM_MAIN_MODEL": LLM,
            "CITADEL_QDRANT_URL": "https://qdrant.private.test:8443",
            "CITADEL_OTLP_ENDPOINT": "https://otlp.private.test:8443",
            "CITADEL_LLM_KEY_FILE": str(secrets / "qdrant_api_key"),
            "CITADEL_QDRANT_KEY_FILE": str(secrets / "qdrant_api_key"),
            "CITADEL_POSTGRES_PASSWORD_FILE": str(secrets / "postgres_password"),
            "CITADEL_BROKER_PASSWORD_FILE": str(secrets / "redis_password"),
            "CITADEL_CACHE_PASSWORD_FILE": str(secrets / "redis_cache_password"),
        }
        self._files: tuple[str, ...] = (*FILES, "tests/deploy/private.yaml")
        self._stores = PLAIN
        if has_ipv6():
            # Two containers of the API cannot have the same port of the host.
            self.add("ipv6.yaml", re.sub(r"^ +ports: .*\n", "", override_of("IPv6"), flags=re.MULTILINE))

    def _sign(self) -> None:
        """Make the certificates of the servers and of nginx, readable by every container."""
        servers, proxy = self.authority.sign(*SERVERS), self.authority.sign("localhost", "127.0.0.1")
        (self.directory / "certificates").mkdir()
        for source, target in (
            (servers.file, "certificates/servers.pem"),
            (servers.key, "certificates/servers.key"),
            (proxy.file, "compose/secrets/tls_certificate"),
            (proxy.key, "compose/secrets/tls_key"),
        ):
            (self.directory / target).write_bytes(source.read_bytes())
            (self.directory / target).chmod(0o444)

    @property
    def url(self) -> str:
        """The address of nginx."""
        return f"https://localhost:{self.port}"

    @property
    def tls(self) -> ssl.SSLContext:
        """Trust of a client in the authority, and in no other."""
        return ssl.create_default_context(cafile=str(self.authority.file))

    def compose(self, *arguments: str) -> str:
        """`docker compose` on the project."""
        files = [word for name in self._files for word in ("-f", name)]
        command = ("docker", "compose", "-p", self.project, *files, *arguments)
        return run(*command, timeout=LONG, env=self._environment | self._stores, cwd=self.directory)

    def up(self, *arguments: str) -> None:
        """Start nginx with all it needs, and the workers; wait until all are well."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", str(int(LONG)), *arguments, *OWN)

    def use_tls(self) -> None:
        """Let the stores be called with TLS from the next start of a container on."""
        self._stores = PRIVATE

    def trust(self) -> None:
        """Write the override of the guide, with the place of the authority's certificate."""
        text = override_of("A private certificate authority")
        self.add("authority.yaml", text.replace("/etc/ssl/private-ca.pem", str(self.authority.file)))

    def add(self, name: str, text: str) -> None:
        """Add a file to those that Compose merges."""
        (self.directory / name).write_text(text)
        self._files = (*self._files, name)

    def remove(self) -> None:
        """All of it, volumes too."""
        self.compose("down", "--volumes", "--timeout", "5", "--remove-orphans")


def has_ipv6() -> bool:
    """Return True if this machine's kernel speaks IPv6."""
    return Path("/proc/net/if_inet6").exists()


def nginx() -> str:
    """Return the name of the stack's image of nginx, or that of Debian's nginx where it is not here."""
    public = images()["NGINX_IMAGE"]
    try:
        docker("image", "inspect", public)
    except CommandFailed:
        folder, tag = str(ROOT / "tests" / "deploy" / "nginx"), "citadel-nginx-test:dev"
        docker("build", "--quiet", "--tag", tag, folder, timeout=BUILD_SECONDS)
        return tag
    return public


@contextmanager
def private_stack(directory: Path) -> Iterator[PrivateStack]:
    """Start the stack without trust in the authority; remove all of it after the block."""
    require_images(*(images()[f"{name}_IMAGE"] for name in ("REDIS", "POSTGRES", "QDRANT")))
    build(images()["CITADEL_TAG"])
    stack = PrivateStack(directory)
    try:
        stack.up()
        yield stack
    except BaseException:
        sys.stderr.write(stack.compose("ps", "--all") + stack.compose("logs", "--tail", "15", "--no-color"))
        raise
    finally:
        stack.remove()
