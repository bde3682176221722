"""Ollama's double as a server: `python -m tests.doubles.ollama --port 0 --slots 4 --request-ms 3 --text-ms 4`."""

from tests.doubles.base.server import main
from tests.doubles.ollama.app import OllamaDouble
from tests.doubles.ollama.settings import OllamaSettings

if __name__ == "__main__":
    main(OllamaDouble, OllamaSettings, __doc__)
