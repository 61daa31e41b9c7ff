"""Which software ran, and on what: for files that are read long afterwards."""

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
PATIENCE = 10  # seconds that git may take


def versions() -> dict[str, str]:
    """The version of every package in PACKAGES, of Python and of the system. What is not installed says so."""
    return {
        **{name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def source(folder: Path = FOLDER) -> dict[str, Any]:
    """The package's version, the commit of the checkout that it runs from, and whether that has changes.

    commit, modified: None where the package's own files are in no git repository, or git cannot be run.
    """
    commit = modified = None
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is not None:  # not just below somebody's repository
        found = re.match(r"# branch\.oid ([0-9a-f]+)\n", status := _git(folder, *STATUS) or "")
        if found is not None:
            commit, modified = found[1], any(not line.startswith("#") for line in status.splitlines())
    return {"version": version("vivit"), "commit": commit, "modified": modified}


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says of the repository that a folder is in, whatever the environment names; None if it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            env={**environment, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace")


def version(package: str) -> str:
    """The version of an installed package, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that was not installed
        return "not installed"
