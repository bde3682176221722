"""README's first snippets run as they are written, against `citadel dev`."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.doubles.process import OllamaProcess
from tests.support.dev_stack import Dev, dev
from tests.support.required import program

pytestmark = [pytest.mark.local_model, pytest.mark.timeout(300)]
README = (Path(__file__).parents[2] / "README.md").read_text()
SECTION = README.partition("## A first request\n")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
EXPORT = "set -a; . .citadel/env; set +a"
OLLAMA = "http://gpu1:11434"
ADDRESS = re.compile(r"(127\.0\.0\.1|localhost):8080")
"""The tests' server has another port, since one of the developer's own may listen on this one."""


@dataclass(frozen=True)
class Project:
    """A directory in which a newcomer tries the snippets, in their order."""

    directory: Path
    dev: Dev
    ollama: OllamaProcess

    def run(self, language: str, text: str) -> None:
        text = ADDRESS.sub(self.dev.env["CITADEL_API_URL"].removeprefix("http://"), text)
        text = text.replace(OLLAMA, self.ollama.url)
        if language == "yaml":
            (self.directory / text.split()[1]).write_text(text)
        elif language == "python":
            (self.directory / "snippet.py").write_text(text)
            assert self.shell(".venv/bin/python snippet.py")
        else:
            for command in text.replace("\\\n", "").splitlines():
                if command.startswith("$ curl"):
                    program("curl")
                self.shell(command.removeprefix("$ "))

    def shell(self, command: str) -> str:
        """Run a command in a shell that has read the env file; return what it prints."""
        ended = subprocess.run(
            ["sh", "-c", f"{EXPORT}; {command}"],
            cwd=self.directory,
            env={name: value for name, value in os.environ.items() if not name.startswith("CITADEL_")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, ollama: OllamaProcess) -> Iterator[Project]:
    directory = tmp_path_factory.mktemp("project")
    (directory / ".venv").symlink_to(sys.prefix)
    (directory / "texts.txt").write_text("gzip compresses files\nargparse parses arguments\ncsv reads tables\n")
    with dev(directory / ".citadel", "--port", "0") as stack:
        yield Project(directory, stack, ollama)


def test_the_env_file_is_sourced_so_that_programs_see_it():
    assert ("console", f"$ {EXPORT}\n") in BLOCKS


@pytest.mark.parametrize(("language", "text"), BLOCKS, ids=[f"{n}-{kind}" for n, (kind, _) in enumerate(BLOCKS)])
def test_a_snippet_runs(project, language, text):
    project.run(language, text)
