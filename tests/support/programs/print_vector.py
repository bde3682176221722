"""Print the vector of a text as hexadecimal digits: `python -m tests.support.programs.print_vector MODEL TEXT`."""

import sys

from tests.doubles.ollama.vectors import expected_vector

if __name__ == "__main__":
    print(expected_vector(sys.argv[1], sys.argv[2]).tobytes().hex())
