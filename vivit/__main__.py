"""The command `vivit`, or `python -m vivit`, in a process of its own."""

from typing import NoReturn

from vivit.process import run


def main() -> NoReturn:
    """Runs the command line, and ends the process."""
    run("vivit", _command)


def _command() -> int:
    from vivit.cli import main  # here, so that Ctrl-C is understood while it is imported

    return main()


if __name__ == "__main__":
    main()
