"""`python -m bench mutants`: changes the code in one place at a time, and counts how many changes the tests find.

A mutant is one changed operator, constant, condition, keyword, statement or result (bench/mutation.py). It is made
while its module is imported (bench/mutant_hook.py): no file is changed. For each, the tests of its file (GROUPS) run in
a fresh process with a time limit. They first run where nothing is changed: what JAX compiles for them is kept, and of
a mutant's tests those that reach its function run first, the quickest first. The order of mutants is drawn from --seed;
each result is a line of --results, and a run that was killed goes on from there. Mutants that no test can find are
listed in bench/equal_mutants.toml with the reason, by the text of their line: an edit of the line makes the entry void,
and a test fails.

Why no tool: mutmut leaves decorated functions alone, and what is jitted is decorated; cosmic-ray writes into the source
files, and has one command for all of them.
"""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bench.harness import parser, report
from bench.mutation import Mutant, mutants
from vivit.cli import outputs
from vivit.cli.arguments import add_json
from vivit.cli.outputs import check_json
from vivit.cli.table import Table

ROOT = Path(__file__).parent.parent
EQUAL_FILE = ROOT / "bench" / "equal_mutants.toml"
LONGEST = 300.0  # seconds for the tests of a mutant, where they were not timed before
UNCHANGED = 900.0  # seconds for those that are timed
SLOWER, STARTING = 5.0, 20.0  # where they were: times what they took, plus seconds
QUICK = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}  # no tests here need pytest's plugins
KEEP = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
CACHE = "JAX_COMPILATION_CACHE_DIR"
READ = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e9"}  # two mutants never write one file
NOTHING_RAN = (4, 5)  # exit codes of pytest: wrong usage, no tests


class Group(NamedTuple):
    """The score that tests should reach, and by file the arguments of pytest that run them."""

    target: float
    tests: dict[str, str]


FAST, DEFAULT = "-m fast", "-m 'not thorough'"


def _tests(*names: str, options: str = DEFAULT, words: str = "") -> str:
    """words: of the tests' names, for -k."""
    return " ".join([*(f"tests/test_{name}.py" for name in names), options, *([f"-k '{words}'"] if words else [])])


_CORES = ("conformance_kernels", "kernels_attention")
_IN_STACKS = "interpreter or lean_step or step_keeps"
_IN_BLOCKS = "small_blocks or 512 or long_sequences or block_sizes1 or under_dropout or whatever"
GROUPS = {
    "reference": Group(0.95, {
        "reference/attention.py": _tests("reference_attention", "reference_gradients", "published", options=FAST),
        "reference/config.py": _tests("config"),
        "reference/costs.py": _tests("config"),
        "reference/dropout.py": _tests("reference_models"),
        "reference/encoder.py": _tests("reference_gradients", "reference_models", "published", options=FAST),
        "reference/gradients.py": _tests("reference_gradients"),
        "reference/layers.py": _tests("reference_layers", "reference_models", "published", options=FAST),
        "reference/models.py": _tests("reference_models", "published", options=FAST),
        "reference/nearest.py": _tests("config", "cli", options=FAST),
        "reference/params.py": _tests("config", "reference_models", "checkpoints_formats", options=FAST),
        "reference/positions.py": _tests("reference_positions", "reference_models", options=FAST),
        "reference/relevance.py": _tests("reference_relevance"),
        "reference/rounding.py": _tests("reference_rounding", options=FAST),
        "reference/tubelet.py": _tests("reference_tubelet", "reference_models", options=FAST),
        "reference/values.py": _tests("config", "bad_values", options=FAST),
    }),
    "kernels": Group(0.95, {
        "kernels/attention.py": _tests("kernels_attention", "block_sizes"),
        "kernels/block_sizes.py": _tests("block_sizes"),
        "kernels/chip.py": _tests("kernels_compile"),
        "kernels/dense.py": _tests("kernels_dense", "kernels_compile", words=f"dense or {_IN_STACKS}"),
        "kernels/factorised.py": _tests(*_CORES, options="", words="factorised"),
        "kernels/flash.py": _tests(
            *_CORES, "block_sizes", "kernels_compile",
            options="", words=f"({_IN_BLOCKS} or (every_core and v3)) and not (spatial or temporal or factorised)",
        ),
        "kernels/heads.py": _tests(*_CORES),
        "kernels/softmax_av.py": _tests(*_CORES, "block_sizes"),
        "kernels/spatial.py": _tests(
            *_CORES, "block_sizes", "kernels_compile",
            words="(spatial or factorised or heads_of) and not compile or step_keeps",
        ),
        "kernels/stacks.py": _tests("kernels_compile", words=f"{_IN_STACKS} or in_place"),
        "kernels/temporal.py": _tests(*_CORES, "block_sizes", words="temporal"),
        "kernels/tiling.py": _tests("kernels_dense"),
    }),
    "model": Group(0.9, {
        "vivit/attention.py": _tests("attention"),
        "vivit/backend.py": _tests("gpu", "model", "derivatives", options=FAST),
        "vivit/dropout.py": _tests("dropout", "attention"),
        "vivit/encoder.py": _tests(
            "forward", "forward_options", "dropout", "training_mesh", "kernels_compile",
            words=f"not (mesh or kernels_compile) or one_device or {_IN_STACKS}",
        ),
        "vivit/gpu_ops.py": _tests("gpu"),
        "vivit/initialise.py": _tests("initialise"),
        "vivit/layers.py": _tests(
            "parts", "forward", "forward_options", "derivatives",
            words="not derivatives or share",
        ),
        "vivit/models.py": _tests("forward", "forward_options", "dropout"),
        "vivit/numerics/gelu.py": _tests("parts"),
        "vivit/numerics/hash_dropout.py": _tests(
            "attention", "dropout", "kernels_attention",
            words="not kernels or drawn or nobody_wrote",
        ),
        "vivit/pallas_ops.py": _tests("kernels_compile", words=_IN_STACKS),
        "vivit/positions.py": _tests("parts", "forward", "forward_options"),
        "vivit/reverse_once.py": _tests("derivatives"),
        "vivit/scan_in_place.py": _tests("kernels_compile", words=_IN_STACKS),
        "vivit/tubelet.py": _tests("parts", "forward", "forward_options"),
    }),
    "checkpoints": Group(0.9, {
        "vivit/checkpoints/flax_names.py": _tests("checkpoints_formats", "checkpoints_image", "published"),
        "vivit/checkpoints/name_map.py": _tests(
            "checkpoints_formats", "checkpoints_safety", "checkpoints_image", "checkpoints_huggingface",
        ),
        "vivit/checkpoints/torch_names.py": _tests("checkpoints_image", "checkpoints_formats", "published"),
    }),
    "sampling": Group(0.9, {
        "vivit/video/sampling.py": _tests("data_sampling"),
        "vivit/video/sliding.py": _tests("features"),
        "vivit/video/views.py": _tests("classify", "data_loading"),
    }),
    "decoding": Group(0.9, {
        "vivit/video/decode.py": _tests("data_decoding", "data_damage", "data_steady"),
        "vivit/video/h264.py": _tests("data_numbering", "data_sparing"),
        "vivit/video/index.py": _tests("data_decoding", "data_hostile"),
    }),
    "training": Group(0.9, {
        "vivit/training/optimiser.py": _tests("training_optimiser"),
        "vivit/training/step.py": _tests("training_losses", "training_step"),
    }),
}  # fmt: skip


class Result(NamedTuple):
    """What came of a mutant."""

    mutant: Mutant
    found: bool
    seconds: float


def main(arguments: Sequence[str]) -> int:
    asked = parser("mutants", __doc__, "--groups reference --count 50 --results mutants.jsonl")
    asked.add_argument("--groups", nargs="+", default=list(GROUPS), choices=GROUPS, metavar="NAME")
    asked.add_argument("--file", help="of the groups' files only this one, such as reference/attention.py")
    asked.add_argument("--seed", default="0", help="of the order, such as the commit's name (default: 0)")
    asked.add_argument("--count", type=int, default=800, help="mutants (default: 800)")
    asked.add_argument("--minutes", type=float, default=120, help="no mutant begins later (default: 120)")
    asked.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants at a time (default: cores)")
    asked.add_argument("--results", type=outputs.path, metavar="FILE.jsonl", help="append to it, and go on from it")
    asked.add_argument("--passed", action="store_true", help="the tests are known to pass: do not run them unchanged")
    asked.add_argument("--at-least", type=float, default=0.0, metavar="SCORE", help="exit with 1 below it (default: 0)")
    add_json(asked)
    options = asked.parse_args(arguments)
    check_json(options)
    for name in ("count", "minutes", "jobs"):
        if not getattr(options, name) > 0:
            asked.error(f"--{name} is {getattr(options, name)}: it must be positive")
    files = {file: tests for name in options.groups for file, tests in GROUPS[name].tests.items()}
    if options.file is not None:
        if options.file not in files:
            asked.error(f"--file is {options.file}: it must be one of {', '.join(files)}")
        files = {options.file: files[options.file]}
    every = [mutant for file in files for mutant in of_file(file)]
    chosen = random.Random(options.seed).sample(every, min(options.count, len(every)))
    reasons = {mutant: reason for mutant, reason in equal().items() if mutant in map(key, chosen)}
    results = _read(options.results) if options.results else {}
    results = {key(mutant): results[key(mutant)] for mutant in chosen if key(mutant) in results}
    waiting = [mutant for mutant in chosen if key(mutant) not in results and key(mutant) not in reasons]
    end = time.monotonic() + 60 * options.minutes
    for result in run(waiting, files, jobs=options.jobs, end=end, passed=options.passed):
        results[key(result.mutant)] = result
        if options.results:
            _append(options.results, result)
    done = [mutant for mutant in chosen if key(mutant) in results or key(mutant) in reasons]
    _report(chosen, done, results, reasons, options)
    return 1 if score(done, results, reasons) < options.at_least else 0


Key = tuple[str, str, str, str, int]  # a mutant without the number of its line


def key(mutant: Mutant) -> Key:
    return mutant[:-1]


def of_file(file: str) -> list[Mutant]:
    return mutants((ROOT / file).read_text(encoding="utf-8"), file)


def equal() -> dict[Key, str]:
    """The mutants that no test can find, and why. Raises ValueError if an entry is of none that there is."""
    entries = tomllib.loads(EQUAL_FILE.read_text(encoding="utf-8"))["equal"]
    known = {key(mutant) for file in {entry["file"] for entry in entries} for mutant in of_file(file)}
    found = {}
    for entry in entries:
        one = (entry["file"], entry["function"], entry["line"], entry["change"], entry.get("nth", 0))
        if one not in known:
            raise ValueError(f"{EQUAL_FILE.name} has a mutant that is none of {entry['file']}: {entry['line']!r}")
        found[one] = entry["reason"]
    return found


def run(waiting: Sequence[Mutant], files: dict[str, str], *, jobs: int, end: float, passed: bool) -> Iterator[Result]:
    """Tests mutants until the time is up. files: their tests. passed: these pass, as long as nothing is changed.

    Raises ValueError for tests that fail or are none where nothing is changed.
    """
    limits = dict.fromkeys(files.values(), LONGEST) if passed else {}
    locks = {tests: threading.Lock() for tests in files.values()}
    folder = tempfile.TemporaryDirectory(prefix="vivit-mutants-")
    kept = {
        tests: {CACHE: f"{folder.name}/{index}", "VIVIT_REACHED": f"{folder.name}/{index}.json"}
        for index, tests in enumerate(locks)
    }
    places = {file: {mutant: index for index, mutant in enumerate(of_file(file))} for file in files}

    def one(mutant: Mutant) -> Result | None:
        tests = files[mutant.file]
        with locks[tests]:
            if tests not in limits and time.monotonic() < end:
                for others in list(limits):  # which compiled some of the same programs
                    _link(Path(kept[others][CACHE]), Path(kept[tests][CACHE]))
                record = os.pathsep.join(str(ROOT / file) for file in files if files[file] == tests)
                limits[tests] = STARTING + SLOWER * _unchanged(tests, {"VIVIT_RECORD": record, **kept[tests], **KEEP})
        if time.monotonic() >= end:
            return None
        start = time.monotonic()
        change = f"{places[mutant.file][mutant]} {ROOT / mutant.file}"
        code = _pytest(tests, limits[tests], {"VIVIT_MUTANT": change, **kept[tests], **READ})
        if code in NOTHING_RAN and passed:
            _unchanged(tests, {})  # says what is wrong with them, if it is not the mutant
        return Result(mutant, code != 0, time.monotonic() - start)

    with folder, ThreadPoolExecutor(jobs) as pool:
        try:
            yield from filter(None, (each.result() for each in as_completed([pool.submit(one, m) for m in waiting])))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _link(source: Path, target: Path) -> None:
    """Links the files of one folder into another."""
    target.mkdir(exist_ok=True)
    for file in source.glob("*"):
        with suppress(FileExistsError):
            os.link(file, target / file.name)


def _unchanged(tests: str, environment: dict[str, str]) -> float:
    """Seconds that tests take where nothing is changed."""
    start = time.monotonic()
    code = _pytest(tests, UNCHANGED, environment)
    if code != 0:
        raise ValueError(f"pytest {tests} ends with {code} where nothing is changed: it must pass in {UNCHANGED:.0f} s")
    return time.monotonic() - start


def _pytest(tests: str, seconds: float, environment: dict[str, str]) -> int | None:
    """The exit code of these tests in a process of their own; None: they took longer."""
    options = ("-x", "-p", "no:cacheprovider", "-p", "bench.mutant_hook", *shlex.split(tests))
    process = subprocess.Popen(
        (sys.executable, "-m", "pytest", *options), cwd=ROOT, env=os.environ | QUICK | environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with what the tests started
        process.wait()


def _read(path: Path) -> dict[Key, Result]:
    """The results of a run before, if there was one; a last line that a kill cut short is left out."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            values = json.loads(line)
        except ValueError:
            continue
        result = Result(Mutant(**values["mutant"]), values["found"], values["seconds"])
        found[key(result.mutant)] = result
    return found


def _append(path: Path, result: Result) -> None:
    line = json.dumps({**result._asdict(), "mutant": result.mutant._asdict()})
    whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")  # not so after a kill
    with path.open("a", encoding="utf-8") as file:
        file.write(("" if whole else "\n") + line + "\n")


def score(done: Iterable[Mutant], results: dict[Key, Result], reasons: dict[Key, str]) -> float:
    """Which part of the mutants that are not equal was found; 1 if there are none."""
    counted = [results[key(mutant)].found for mutant in done if key(mutant) not in reasons]
    return sum(counted) / len(counted) if counted else 1.0


def _report(chosen: Sequence[Mutant], done: Sequence[Mutant], results: dict, reasons: dict, options) -> None:
    rows = []
    for name in options.groups:
        group = [mutant for mutant in done if mutant.file in GROUPS[name].tests]
        if not group:
            continue
        counts = Counter(
            "equal" if key(mutant) in reasons else "found" if results[key(mutant)].found else "survived"
            for mutant in group
        )
        figures = (str(len(group)), str(counts["equal"]), str(counts["found"]), str(counts["survived"]))
        rows.append((name, *figures, f"{score(group, results, reasons):.1%}", f"{GROUPS[name].target:.0%}"))
    columns = ("group", "mutants", "equal", "found", "survived", "score", "target")
    survived = sorted(mutant for mutant in done if key(mutant) not in reasons and not results[key(mutant)].found)
    listed = [(f"{mutant.file}:{mutant.number}", f"{mutant.change}: {mutant.line}") for mutant in survived]
    tables = [Table(columns, rows, title="Mutants")]
    if listed:
        tables.append(Table(("survivor", "change"), listed, texts=2, title="Mutants that no test found"))
    seconds = sum(results[key(mutant)].seconds for mutant in done if key(mutant) not in reasons)
    notes = [
        f"{len(done)} of {len(chosen)} mutants drawn with seed {options.seed}; {seconds / 60:.0f} minutes of tests. "
        "score: found ÷ those that are not equal."
    ]
    outcomes = {
        mutant: {"equal": reasons.get(key(mutant)), "found": key(mutant) in results and results[key(mutant)].found}
        for mutant in done
    }
    values = {
        "seed": options.seed,
        "score": score(done, results, reasons),
        "results": [{**mutant._asdict(), **outcome} for mutant, outcome in outcomes.items()],
    }
    report(tables, notes, options, values)
