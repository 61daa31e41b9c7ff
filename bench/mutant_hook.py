"""A pytest plugin that imports one module as one of its mutants: VIVIT_MUTANT is "INDEX PATH". No file is changed.

VIVIT_REACHED is a JSON file of what each test took, and of the functions that it reached. It is written where
VIVIT_RECORD has the paths of modules (os.pathsep between them). A mutant reads it: the tests that reach its function
run first, the quickest first.

It also limits the memory of its process, and lets hypothesis report the first example that fails: a smaller one would
say no more here, and takes minutes to find.
"""

import ast
import builtins
import importlib.machinery
import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType

import pytest
from hypothesis import Phase, settings

from bench.mutation import mutants, mutated, recording

MEMORY = 8 * 2**30  # bytes of data of a process: a mutant may ask for an array of any size
RECORD = "__vivit_reached__"  # a builtin while functions are recorded

_mutant = os.environ.get("VIVIT_MUTANT")
_reached_file = os.environ.get("VIVIT_REACHED")
_recorded = os.environ.get("VIVIT_RECORD")
_reached: set[tuple[str, str]] = set()  # files and functions, by the test that runs
_tests: dict[str, tuple[float, list[tuple[str, str]]]] = {}  # by test: seconds, what it reached


def _install(paths: list[Path], change: Callable[[str, Path], ast.Module]) -> None:
    """Lets the modules of these paths, under whatever link they are imported, be the trees that `change` makes."""
    read = importlib.machinery.SourceFileLoader.get_code

    def get_code(self: importlib.machinery.SourceFileLoader, fullname: str) -> CodeType | None:
        path = Path(self.path).resolve()
        if path not in paths:
            return read(self, fullname)
        return compile(change(path.read_text(encoding="utf-8"), path), self.path, "exec", dont_inherit=True)

    importlib.machinery.SourceFileLoader.get_code = get_code


def pytest_configure() -> None:
    """The profile that tests/conftest.py has loaded, without the phases that explain a failure."""
    settings.register_profile("mutant", settings.default, phases=(Phase.explicit, Phase.generate))
    settings.load_profile("mutant")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _reached.clear()
    start = time.monotonic()
    result = yield
    _tests[item.nodeid] = (time.monotonic() - start, sorted(_reached))
    return result


def pytest_sessionfinish() -> None:
    if _recorded and _reached_file:
        Path(_reached_file).write_text(json.dumps(_tests), encoding="utf-8")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not (_mutant and _reached_file and Path(_reached_file).exists()):
        return
    known = json.loads(Path(_reached_file).read_text(encoding="utf-8"))
    files = list(dict.fromkeys(item.path for item in items))  # a file's fixtures live as long as its tests follow

    def place(item: pytest.Item) -> tuple[bool, int, float]:
        seconds, reached = known.get(item.nodeid, (0.0, ()))
        return _changed not in reached, files.index(item.path), seconds

    items.sort(key=place)


resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
if _mutant:
    _index, _, _name = _mutant.partition(" ")
    _path = Path(_name).resolve()
    _changed = [str(_path), mutants(_path.read_text(encoding="utf-8"), "")[int(_index)].function]
    _install([_path], lambda source, path: mutated(source, int(_index)))
elif _recorded:
    setattr(builtins, RECORD, lambda file, function: _reached.add((file, function)))
    _install(
        [Path(name).resolve() for name in _recorded.split(os.pathsep)],
        lambda source, path: recording(source, str(path), RECORD),
    )
