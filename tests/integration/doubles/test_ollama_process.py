"""Ollama's double as a process: real connections, real ends."""

import os
import subprocess
import sys

import httpx
import numpy as np
import openai
import pytest

from tests.doubles.ollama.vectors import expected_vector
from tests.doubles.process import ROOT, DoubleFailedError, OllamaProcess
from tests.support.double_client import MODEL, floats
from tests.support.web import web


@pytest.fixture(scope="module")
def process():
    with OllamaProcess(slots=2) as running:
        yield running


@pytest.fixture
def server(process):
    process.reset()
    return process


class TestProcess:
    def embed(self, server, timeout=10.0):
        return web.post(f"{server.url}/api/embed", json={"model": MODEL, "input": "a"}, timeout=timeout)

    def test_it_embeds_and_counts(self, server):
        assert np.array_equal(floats(self.embed(server).json()["embeddings"][0]), expected_vector(MODEL, "a"))
        assert server.stats()["embedded_counts"] == {MODEL: {"a": 1}}

    def test_the_real_openai_client(self, server):
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
            data = client.embeddings.create(model=MODEL, input=["a", "b"]).data
            assert np.array_equal(floats(data[1].embedding), expected_vector(MODEL, "b"))
            server.behaviour("rate429")
            with pytest.raises(openai.RateLimitError):
                client.embeddings.create(model=MODEL, input=["a"])

    def test_dead_closes_the_connection(self, server):
        server.behaviour("dead")
        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            self.embed(server)

    def test_disconnect_closes_it_midway(self, server):
        server.behaviour("disconnect")
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
            self.embed(server)

    def test_hang_lasts_as_long_as_the_client(self, server):
        server.behaviour("hang", for_requests=1)
        with pytest.raises(httpx.ReadTimeout):
            self.embed(server, timeout=0.05)
        assert self.embed(server).status_code == 200

    def test_an_unknown_mode_is_an_error(self, server):
        with pytest.raises(DoubleFailedError, match="unknown mode"):
            server.behaviour("nope")

    def test_kill_and_restart_on_the_same_port(self):
        with OllamaProcess() as own:
            url, pid = own.url, own.pid
            own.kill()
            with pytest.raises(httpx.ConnectError):
                self.embed(own)
            own.restart_same_port()
            assert (own.url, own.pid != pid) == (url, True)
            assert self.embed(own).status_code == 200

    def test_unknown_models_are_refused_at_the_start(self):
        with pytest.raises(ValueError, match="unknown models"):
            OllamaProcess(models=("nope",))

    def test_it_dies_with_its_parent(self):
        # the double inherits this pipe's writing end for its stderr: the end of the pipe is its death
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as pipe:
            command = [sys.executable, "-m", "tests.support.programs.leave_a_double"]
            parent = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=writing)
            os.close(writing)
            assert parent.wait(30) == 1
            assert pipe.read() == b""
