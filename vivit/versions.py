"""The versions of the software and the source commit, to record in files."""

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("vivit", "jax", "jaxlib", "numpy")
FOLDER = Path(__file__).resolve().parent
STATUS = ("status", "--porcelain=v2", "--branch", "--untracked-files=no")
GIT_TIMEOUT = 10  # seconds


def versions() -> dict[str, str]:
    """Returns the versions of PACKAGES ("not installed" if missing), of Python and of the operating system."""
    return {
        **{name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def source(folder: Path = FOLDER) -> dict[str, Any]:
    """Returns the package's version, the commit of its checkout, and whether tracked files are modified.

    commit, modified: None if the package's files are not in a git repository, or if git cannot be run.
    """
    commit = modified = None
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is not None:  # tracked, not only inside a repository
        match = re.match(r"# branch\.oid ([0-9a-f]+)\n", status := _git(folder, *STATUS) or "")
        if match is not None:
            commit, modified = match[1], any(not line.startswith("#") for line in status.splitlines())
    return {"version": version("vivit"), "commit": commit, "modified": modified}


def _git(folder: Path, *arguments: str) -> str | None:
    """Returns git's output for a folder's repository, ignoring GIT_ environment variables; None if git fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            env={**environment, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.decode("utf-8", "replace")


def version(package: str) -> str:
    """Returns the version of an installed package, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # for example vivit, run from a checkout
        return "not installed"
