"""Named arrays into a safetensors file, with the system's own error where that cannot be written."""

import os
import re
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file


def write_safetensors(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Raises OSError for a full disk and the like, which the library calls by an error of its own."""
    try:
        save_file(arrays, path, metadata)
    except SafetensorError as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise OSError(f"{path} could not be written: {error}") from None
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from None
