"""PostgreSQL under `citadel dev`: parts that need no server."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from citadel_client.dev import cluster, leftovers, unprivileged
from citadel_client.dev.cluster import Cluster, Programs
from citadel_client.dev.errors import NoPostgres, OtherPostgres, StartFailed
from citadel_client.dev.home import Home
from citadel_client.dev.postgres import PostgresServer

PORT = 6000
WAIT = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); print(flush=True); input()"
"""A process that lives until it is told to end."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A machine on which nothing is installed but what the test puts into this folder, which is on PATH."""
    found = tmp_path / "bin"
    found.mkdir()
    monkeypatch.setattr("sys.prefix", str(tmp_path / "nowhere"))
    monkeypatch.setattr(cluster, "DEBIAN", tmp_path / "debian")
    monkeypatch.setenv("PATH", str(found))
    return found


def install(folder, postgres="echo 'postgres (PostgreSQL) 18.4'", initdb="exit 0"):
    """Programs that do what the shell says."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, script in (("postgres", postgres), ("initdb", initdb)):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)


def made(directory, major=18):
    """A data directory, as far as it is looked at from outside."""
    directory.mkdir(parents=True)
    (directory / "PG_VERSION").write_text(f"{major}\n")
    return Cluster(directory, Programs(folder=directory, major=18))


def test_without_programs_it_says_what_to_install(folder):
    with pytest.raises(NoPostgres, match=r"scripts/setup.*install postgresql"):
        Programs.find()


def test_a_server_without_initdb_is_not_used(folder):
    install(folder)
    (folder / "initdb").unlink()
    with pytest.raises(NoPostgres):
        Programs.find()


def test_programs_on_path_are_found_before_debians_newest(folder, tmp_path):
    for version in ("9.6", "15", "17"):
        install(tmp_path / "debian" / version / "bin", f"echo 'postgres (PostgreSQL) {version} (Debian {version}-1)'")
    assert Programs.find() == Programs(folder=tmp_path / "debian" / "17" / "bin", major=17)
    install(folder)
    assert Programs.find() == Programs(folder=folder, major=18)


def test_programs_installed_with_python_are_found_first(folder, tmp_path):
    install(folder)
    beside = tmp_path / "nowhere" / cluster.EMBEDDED
    install(beside)
    assert Programs.find().folder == beside


def test_data_of_another_version_are_refused_with_advice(tmp_path):
    with pytest.raises(OtherPostgres, match=r"created by PostgreSQL 16, and PostgreSQL 18 .*pg_upgrade.*move it away"):
        made(tmp_path / "data", 16).check()
    made(tmp_path / "other", 18).check()


def test_the_output_of_a_failing_initdb_is_shown(folder, tmp_path):
    install(folder, initdb="echo no room >&2; exit 1")
    found = Cluster(tmp_path / "data", Programs.find())
    with pytest.raises(StartFailed, match="no room"):
        found.create("secret")
    assert not found.exists


@pytest.mark.parametrize("pid", [os.getpid(), 1], ids=["own", "init"])
def test_a_lock_whose_number_is_another_process_is_removed(tmp_path, pid):
    found = made(tmp_path / "data")
    lock = found.directory / "postmaster.pid"
    lock.write_text(f"{pid}\n{found.directory}\n")
    found.postmaster(PORT, [])
    assert not lock.exists()


def test_a_lock_of_a_running_server_is_left_alone(tmp_path):
    found = made(tmp_path / "data")
    lock = found.directory / "postmaster.pid"
    waiting = [sys.executable, "-S", "-c", WAIT, "-D", str(found.directory)]
    with subprocess.Popen(waiting, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        lock.write_text(f"{process.pid}\n")
        found.postmaster(PORT, [])
        assert lock.exists()
        process.communicate(b"\n")


@pytest.mark.parametrize(("mine", "code"), [(True, -signal.SIGINT), (False, 0)])
def test_a_server_that_an_earlier_run_left_ends_fast_and_no_other_process(tmp_path, mine, code):
    home = Home(tmp_path / "home")
    home.create()
    data = home.database if mine else tmp_path / "other"
    waiting = [sys.executable, "-S", "-c", WAIT, "-D", str(data)]
    with subprocess.Popen(
        waiting, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, cwd="/"
    ) as process:
        process.stdout.readline()
        home.update_state(pids={"postgres": process.pid})
        leftovers.end_leftovers(home)
        process.communicate(b"\n")
    assert process.returncode == code


@pytest.mark.parametrize("content", ["", "not a number\n", "999999999\n"])
def test_other_locks_are_left_to_postgres(tmp_path, content):
    found = made(tmp_path / "data")
    lock = found.directory / "postmaster.pid"
    lock.write_text(content)
    found.postmaster(PORT, [])
    assert lock.exists()


def test_the_password_is_kept_in_a_private_file_only(folder, tmp_path):
    install(folder)
    home = Home(tmp_path / "home")
    home.create()
    server = PostgresServer(home, PORT)
    server.prepare()
    dsn = server.dsn
    secret = home.database.with_name("postgres.password")
    assert secret.stat().st_mode & 0o077 == 0
    assert dsn == f"postgresql://citadel:{secret.read_text()}@127.0.0.1:{PORT}/citadel"
    assert not [word for word in server.command() if secret.read_text() in word]
    assert PostgresServer(home, PORT).dsn == dsn


def test_an_ordinary_user_runs_the_command_unchanged(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unprivileged.command_as_owner(["/bin/true"], tmp_path) == ["/bin/true"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_as_root_a_command_runs_as_another_user_who_passes_closed_directories(tmp_path):
    tmp_path.chmod(0o700)
    (tmp_path / "closed").mkdir(mode=0o700)
    data = tmp_path / "closed" / "data"
    data.mkdir(mode=0o700)
    unprivileged.give(data)
    script = 'id -un; echo mine >"$0/file"; echo no 2>/dev/null >"$0/../file"; cat "$0/file"'
    command = unprivileged.command_as_owner(["/bin/sh", "-c", script, str(data)], data)
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout.split() == ["nobody", "mine"]
    if may_be_given_reading_alone():  # a container's root has only the capability to read and write
        assert not (tmp_path / "closed" / "file").exists()


def may_be_given_reading_alone() -> bool:
    status = Path("/proc/self/status").read_text()
    permitted = next(line.split()[1] for line in status.splitlines() if line.startswith("CapPrm:"))
    return bool(int(permitted, 16) >> unprivileged.CAP_DAC_READ_SEARCH & 1)
