"""`vivit conform`: examines an implementation from elsewhere, property by property, against the reference."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vivit.cli import outputs
from vivit.cli.arguments import add_json
from vivit.cli.console import console, say, show
from vivit.cli.parser import Parser
from vivit.cli.table import FAIL, Table
from vivit.files.atomic import write_text
from vivit.reference.values import MAX_COUNT, quoted

if TYPE_CHECKING:
    from vivit.conformance.examine import Verdict

PEERS = {"torch": "torch", "transformers": "transformers", "vit_pytorch_vivit": "vit-pytorch"}  # module: package
OUTCOMES = ("passed", "failed", "unsupported", "absent")
NOTE = (
    "MODULE has any of the functions that vivit.conformance describes. It is imported from the current folder.\n"
    "Ours and others': vivit.conformance.adapters.xla, .pallas, .transformers, .lucidrains and .jax_flash."
)


def add(parser: Parser) -> None:
    """Adds the arguments of the command."""
    examples = "vivit conform my.module\nvivit conform path/to/file.py --seed 7 --verbose"
    parser.show_examples(examples, NOTE)
    parser.add_argument("module", metavar="MODULE", help="my.module, my.module:an_object or path/to/file.py")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of all cases (default: 0)")
    parser.add_argument("--examples", type=int, default=6, metavar="N", help="cases of each property (default: 6)")
    parser.add_argument("--any-sizes", action="store_true", help="draw any sizes, instead of a few that compile once")
    parser.add_argument("--only", metavar="TEXT", help="only properties whose function, name or dtype contains this")
    parser.add_argument("--verbose", action="store_true", help="print every property")
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Returns the exit code: 0 if nothing failed and something ran, else 1."""
    for name, least in (("seed", 0), ("examples", 1)):
        if not least <= getattr(options, name) <= MAX_COUNT:
            raise ValueError(f"--{name} is {quoted(getattr(options, name))}: it must be from {least} to {MAX_COUNT}")
    outputs.check_json(options)
    from vivit.audit.report import null_if_not_finite  # here: they need JAX and the extra [conformance]
    from vivit.conformance.examine import examine
    from vivit.conformance.implementation import load
    from vivit.conformance.plan import Plan
    from vivit.conformance.properties import properties
    from vivit.versions import source, version, versions

    implementation = load(options.module)
    chosen = [each for each in properties(implementation.dtypes[0]) if _matches(each, options.only)]
    if not chosen:
        raise ValueError(f"--only is {quoted(options.only)}: no property has it in its function, name or dtype")
    plan = Plan(seed=options.seed, examples=options.examples, any_sizes=options.any_sizes)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        found = examine(implementation, plan, chosen)
        verdicts = list(progress.track(found, total=len(chosen), description="examining"))
    passed = any(each.outcome == "passed" for each in verdicts)
    failed = any(each.outcome == "failed" for each in verdicts)
    peers = {package: version(package) for module, package in PEERS.items() if module in sys.modules}
    report = {
        "implementation": options.module,
        **asdict(plan),
        "passed": passed and not failed,
        "vivit": source(),
        "versions": versions() | peers,
        "rows": [null_if_not_finite(asdict(each)) for each in verdicts],
    }
    text = json.dumps(report, indent=1) + "\n"
    if options.output is not None:
        write_text(options.output, text)
    if options.json:
        print(text, end="")
    else:
        known = ", ".join(f"{name} {number}" for name, number in report["versions"].items() if name != "system")
        _print(verdicts, f"{options.module}, seed {plan.seed} ({known})", verbose=options.verbose)
    return 0 if passed and not failed else 1


def _matches(each: Any, text: str | None) -> bool:
    return text is None or text in f"{each.function}, {each.name}, {each.dtype}"


def _print(verdicts: "Sequence[Verdict]", subject: str, *, verbose: bool) -> None:
    """Prints the table, every failure, and a sentence with the result."""
    out = console()
    show(_properties(verdicts, subject) if verbose else _functions(verdicts, subject), out)
    for each in verdicts:
        if each.outcome == "failed":
            say(f"FAIL {each}", out, soft_wrap=True)
    counts = {outcome: sum(each.outcome == outcome for each in verdicts) for outcome in OUTCOMES}
    if not counts["passed"] + counts["failed"]:
        say("Nothing ran: every property is unsupported or absent.", out)
    said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    say(f"Of {len(verdicts)} properties {said}.", out)


def _functions(verdicts: "Sequence[Verdict]", subject: str) -> Table:
    """Returns one line for each function and dtype: how many properties have which outcome."""
    rows = []
    for function, dtype in dict.fromkeys((each.function, each.dtype) for each in verdicts):
        outcomes = [each.outcome for each in verdicts if (each.function, each.dtype) == (function, dtype)]
        counts = [outcomes.count(outcome) for outcome in OUTCOMES]
        word = FAIL if counts[1] else "pass" if counts[0] else "absent" if counts[3] else "unsupported"
        rows.append((function, dtype, *map(str, counts), word))
    return Table(("function", "dtype", *OUTCOMES, ""), rows, texts=2, title=subject)


def _properties(verdicts: "Sequence[Verdict]", subject: str) -> Table:
    """Returns one line for each property: how many cases ran."""
    words = {"passed": "pass", "failed": FAIL}
    rows = [
        (
            each.function,
            each.name,
            each.dtype,
            str(each.cases),
            str(each.unsupported),
            words.get(each.outcome, each.outcome),
        )
        for each in verdicts
    ]
    return Table(("function", "property", "dtype", "cases", "unsupported", ""), rows, texts=3, title=subject)
