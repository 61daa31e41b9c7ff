"""The command line `vivit`: picks the command, and turns errors into one line on standard error, exit 2."""

import argparse
import sys
from collections.abc import Sequence

import vivit
from vivit import process
from vivit.commands import audit, classify, convert, data, evaluate, explain, export, features, info, train
from vivit.commands.parser import Parser
from vivit.extras import missing
from vivit.reference.values import one_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit code: 0, 1 if an audit failed, 2 for bad input (one line on stderr)."""
    process.open_streams()
    options = _parser().parse_args(arguments)
    try:
        code = _run(options)
        sys.stdout.flush()  # a reader that has gone is found here, not when the interpreter ends
        return code
    except BrokenPipeError:  # the reader, such as head, has what it wanted
        process.discard_output()
        return 0
    except ModuleNotFoundError as error:
        print(f"vivit {options.command}: {missing(error)}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        if not process.interrupted():
            print(f"vivit {options.command}: {one_line(str(error))}", file=sys.stderr)
            return 2
    except KeyboardInterrupt:
        pass
    print(f"vivit {options.command}: interrupted", file=sys.stderr)
    return process.INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    if options.version:
        print(f"vivit {vivit.__version__}")
    elif options.command is None:
        _parser().print_help()
    else:
        return options.run(options)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="vivit",
        description="ViViT, the Video Vision Transformer.",
        example="vivit classify vivit/demo/*.mkv\nvivit COMMAND --help",
    )
    parser.add_argument("--version", action="store_true", help="print the version, and stop")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for command in (classify, features, explain, audit, info, convert, export, data, train, evaluate):
        command.add(commands)
    return parser
