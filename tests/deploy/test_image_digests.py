"""Images by digest, as a registry makes them known: pinned by `scripts/digests`, and run by the engine."""

import sys
from collections.abc import Iterator

import pytest

from tests.deploy.engine import BUILD_SECONDS, ROOT, CommandFailed, docker, require_engine, run
from tests.deploy.stack import images, require_images
from tests.support.child import free_port
from tests.support.polling import eventually

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(600)]
SCRIPT = str(ROOT / "scripts" / "digests")


@pytest.fixture(scope="module")
def pushed() -> Iterator[str]:
    """Push the stack's Redis to a registry of this machine; return its name there, with its tag."""
    require_engine()
    redis = images()["REDIS_IMAGE"]
    require_images(redis)
    registry, port = "citadel-registry-test:dev", free_port()
    docker("build", "--quiet", "--tag", registry, str(ROOT / "tests/deploy/registry"), timeout=BUILD_SECONDS)
    container = docker("run", "--detach", f"--publish=127.0.0.1:{port}:5000", registry).strip()
    name = f"localhost:{port}/redis:{redis.rpartition(':')[2]}"
    try:
        docker("tag", redis, name)
        eventually(lambda: _pushes(name), 60)
        yield name
    finally:
        docker("rm", "--force", "--volumes", container)
        docker("image", "rm", name)


def _pushes(name: str) -> bool:
    try:
        docker("push", "--quiet", name)
    except CommandFailed:
        return False
    return True


def test_a_pulled_image_is_pinned_and_runs_by_its_digest(pushed):
    with pytest.raises(CommandFailed) as others:  # of images that were built here
        run(sys.executable, SCRIPT, env={"REDIS_IMAGE": pushed})
    (line,) = [line for line in str(others.value).splitlines() if line.startswith("REDIS_IMAGE=")]
    pinned = line.partition("=")[2]
    assert pinned.startswith(f"{pushed}@sha256:")
    assert "Redis server" in docker("run", "--rm", "--entrypoint=redis-server", pinned, "--version")


def test_an_image_without_a_digest_is_named(pushed):
    with pytest.raises(CommandFailed, match=r"citadel-registry-test:dev has no digest here: `docker pull` it"):
        run(sys.executable, SCRIPT, env={"REDIS_IMAGE": pushed, "QDRANT_IMAGE": "citadel-registry-test:dev"})
