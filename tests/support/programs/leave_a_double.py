"""Start a double and end without stopping it."""

import os

from tests.doubles.process import OllamaProcess

if __name__ == "__main__":
    print(OllamaProcess().pid, flush=True)
    os._exit(1)
