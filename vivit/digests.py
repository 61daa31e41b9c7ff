"""What tells whether two audits were of the same things: SHA-256 hashes, of numbers rather than of files' formats.

HASHED says of which bytes each is; the report of an audit repeats it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from vivit.reference.params import Params, leaves

HASHED = {
    "weights": "of every leaf, in the order of vivit/reference/params.py, 'path dtype shape ' in UTF-8, such as "
    "'embedding/bias float32 (768,) ', then its numbers, the last axis fastest, little-endian",
    "video": "the file, byte by byte",
    "pixels": "the clip before preprocessing, a byte each: frame by frame, row by row, red green blue",
    **dict.fromkeys(
        ("config", "labels", "preprocessing"),
        "what --json has under that name, in UTF-8, as Python's json.dumps(value, sort_keys=True, "
        "separators=(',', ':'), ensure_ascii=False) writes it",
    ),
}


def digest_of_params(params: Params) -> str:
    """SHA-256 of weights, as HASHED says: whatever file or format they come from."""
    digest = hashlib.sha256()
    for name, leaf in leaves(params):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.data)
    return digest.hexdigest()


def digest_of_pixels(clip: np.ndarray) -> str:
    """SHA-256 of the bytes alone, frame by frame, row by row. clip: uint8[frames height width 3]."""
    return hashlib.sha256(np.ascontiguousarray(clip).data).hexdigest()


def digest_of_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, a part at a time."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_json(value: Any) -> str:
    """SHA-256 of a value as JSON, as HASHED says: the order of its keys and the layout of a file do not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
