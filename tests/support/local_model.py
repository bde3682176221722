"""The built-in model's reference: texts, and the vectors that the reference implementation gives for them."""

import base64
import json
from pathlib import Path

import numpy as np

REFERENCE = json.loads((Path(__file__).parents[1] / "unit" / "data" / "minilm_reference.json").read_text())["cases"]
CASES = {case["name"]: case for case in REFERENCE}


def text_of(case):
    return case["text"] if "text" in case else "".join(part * times for part, times in case["parts"])


def vector_of(case):
    return np.frombuffer(base64.b64decode(case["vector"]), dtype="<f4")


def cosine(one, other):
    one, other = one.astype(np.float64), other.astype(np.float64)
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
