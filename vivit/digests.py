"""What tells whether two sets of weights, or two clips, are the same: hashes that do not depend on files or formats."""

import hashlib

import numpy as np

from vivit.reference.params import Params, leaves


def digest_of_params(params: Params) -> str:
    """SHA-256 of every leaf's "path dtype shape " and bytes, in the order of reference/params.py."""
    digest = hashlib.sha256()
    for name, leaf in leaves(params):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.data)
    return digest.hexdigest()


def digest_of_pixels(clip: np.ndarray) -> str:
    """SHA-256 of the bytes alone, frame by frame, row by row. clip: uint8[frames height width 3]."""
    return hashlib.sha256(np.ascontiguousarray(clip).data).hexdigest()
