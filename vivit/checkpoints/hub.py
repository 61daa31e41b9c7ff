"""Checkpoints by their name on the Hugging Face hub, "owner/name"; their cache is huggingface_hub's business."""

import re
from pathlib import Path


def is_hub_name(path: str | Path) -> bool:
    """Whether this is "owner/name" and nothing on this machine: neither it nor a folder `owner` exists."""
    text = str(path)
    return (
        isinstance(path, str)
        and re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", text) is not None
        and not Path(text).exists()
        and not Path(text).parent.exists()
    )


def fetch(name: str) -> Path:
    """The folder in huggingface_hub's cache with a checkpoint's JSON and safetensors files, downloaded if need be.

    Raises ValueError without the [hub] extra, or in that library's words if it cannot be had.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ValueError(
            f"{name} is not on this machine, and to fetch it from the hub huggingface_hub is needed: "
            'install it with: pip install "vivit[hub]"'
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # a network has many ways to fail, and the library a class for each
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"{name} cannot be had from the hub: {reason[0] if reason else type(error).__name__}"
        ) from None
