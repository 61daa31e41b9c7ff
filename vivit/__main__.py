"""The command `vivit`, or `python -m vivit`."""

from typing import NoReturn

from vivit.cli.process import run


def main() -> NoReturn:
    """Runs the command and ends the process."""
    run("vivit", _command)


def _command() -> int:
    from vivit.cli.main import main  # here, so that Ctrl-C is handled during the import

    return main()


if __name__ == "__main__":
    main()
