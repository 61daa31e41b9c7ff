"""An argparse parser without abbreviations, with one-line errors, and with an example at the end of the help."""

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from vivit.reference.nearest import did_you_mean
from vivit.reference.values import one_line


class Parser(argparse.ArgumentParser):
    """An argparse parser, whose subcommands are Parsers as well.

    fill: adds the arguments when something is parsed, so that a command does not import the modules of other commands.
    """

    def __init__(self, *, fill: "Callable[[Parser], None] | None" = None, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)
        self._fill = fill

    def show_examples(self, examples: str, note: str = "") -> None:
        """Sets the end of the help: a note, then command lines."""
        lines = examples.splitlines()
        shown = "\n  ".join(["examples:" if len(lines) > 1 else "example:", *lines])
        self.epilog = f"{note}\n\n{shown}" if note else shown

    def filled(self) -> "Parser":
        """Adds the arguments if that is not done yet. Returns the parser."""
        fill, self._fill = self._fill, None
        if fill is not None:
            fill(self)
        return self

    def error(self, message: str) -> NoReturn:
        """Prints one line and exits with code 2."""
        self.exit(2, f"{self.prog}: {one_line(message)}\n")

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]  # it has overloads
        self, args: Any = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Rejects unknown arguments, with a suggestion."""
        self.filled()
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            hint = did_you_mean(unknown[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {_hinted(' '.join(unknown), hint)}")
        return parsed, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            hint = did_you_mean(str(value), map(str, action.choices or ()))
            raise argparse.ArgumentError(action, _hinted(error.message, hint)) from None


def _hinted(message: str, hint: str) -> str:
    return f"{message}; {hint.rstrip()}" if hint else message
