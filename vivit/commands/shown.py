"""How commands show tables."""

import sys

from rich.console import Console

RIGHT = {"justify": "right", "no_wrap": True}


def console() -> Console:
    """Standard output; as wide as the table needs when it is not a terminal, so that a log keeps every column."""
    return Console(width=None if sys.stdout.isatty() else 160)
