"""How every command line here is parsed: no abbreviations, one line for an error, an example at the end of the help."""

import argparse
from typing import Any, NoReturn

from vivit.reference.nearest import did_you_mean
from vivit.reference.values import one_line


class Parser(argparse.ArgumentParser):
    """An argparse parser, and so are those of its subcommands. example: command lines, shown under the help."""

    def __init__(self, *, example: str = "", epilog: str = "", **options: Any) -> None:
        lines = example.splitlines()
        shown = "\n  ".join(["examples:" if len(lines) > 1 else "example:", *lines])
        super().__init__(
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog="\n\n".join(part for part in (epilog, shown if example else "") if part),
            **options,
        )

    def error(self, message: str) -> NoReturn:
        """Exit 2."""
        self.exit(2, f"{self.prog}: {one_line(message)}\n")

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]  # it has overloads
        self, args: Any = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Nothing that is not known is let through: what a command does not take is its own error."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            hint = did_you_mean(unknown[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {_hinted(' '.join(unknown), hint)}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            hint = did_you_mean(str(value), map(str, action.choices or ()))
            raise argparse.ArgumentError(action, _hinted(error.message, hint)) from None


def _hinted(message: str, hint: str) -> str:
    return f"{message}; {hint.rstrip()}" if hint else message
