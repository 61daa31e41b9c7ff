"""SHA-256 hashes of weights, clips and configurations, which tell whether two audits had the same inputs.

HASHED describes the bytes of each hash; the report of an audit includes it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from vivit.reference.params import Params, leaves

HASHED = {
    "weights": "for every leaf, in the order of vivit/reference/params.py: 'path dtype shape ' in UTF-8, such as "
    "'embedding/bias float32 (768,) ', then its numbers in C order, little-endian",
    "video": "the bytes of the file",
    "pixels": "the clip before preprocessing, one byte per color: frame by frame, row by row, red green blue",
    **dict.fromkeys(
        ("config", "labels", "preprocessing"),
        "the value with this name in the output of --json, in UTF-8, as written by Python's json.dumps(value, "
        "sort_keys=True, separators=(',', ':'), ensure_ascii=False)",
    ),
}


def hash_of_params(params: Params) -> str:
    """Returns the SHA-256 of weights as HASHED describes it, which does not depend on their file or format."""
    digest = hashlib.sha256()
    for name, leaf in leaves(params):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.data)
    return digest.hexdigest()


def hash_of_pixels(clip: np.ndarray) -> str:
    """Returns the SHA-256 of the pixels in C order. clip: uint8[frames height width 3]."""
    return hashlib.sha256(np.ascontiguousarray(clip).data).hexdigest()


def hash_of_file(path: str | Path) -> str:
    """Returns the SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of_json(value: Any) -> str:
    """Returns the SHA-256 of a value as JSON, as HASHED describes it. The order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
