"""The command line `vivit`: picks the command, and turns errors into one line on standard error, exit 2."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from vivit.commands import audit, classify, convert, data, evaluate, explain, export, features, info, train
from vivit.extras import missing
from vivit.reference.values import one_line


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {one_line(message)}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit code: 0, 1 if an audit failed, 2 for bad input (one line on stderr)."""
    options = _parser().parse_args(arguments)
    try:
        code = options.run(options)
        sys.stdout.flush()  # a reader that has gone is found here, not when the interpreter ends
        return code
    except BrokenPipeError:  # the reader, such as head, has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        print(f"vivit {options.command}: {missing(error)}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"vivit {options.command}: {one_line(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"vivit {options.command}: interrupted", file=sys.stderr)
        return 130


def _parser() -> _Parser:
    parser = _Parser(prog="vivit", description="ViViT, the Video Vision Transformer.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (classify, features, explain, audit, info, convert, export, data, train, evaluate):
        command.add(commands)
    return parser
