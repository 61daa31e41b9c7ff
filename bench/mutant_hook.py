"""A pytest plugin that imports one module as one of its mutants: VIVIT_MUTANT is "INDEX PATH". No file is changed.

It also limits the memory of its process, and lets hypothesis report the first example that fails: a smaller one would
say no more here, and takes minutes to find.
"""

import importlib.machinery
import os
import resource
from pathlib import Path
from types import CodeType

from hypothesis import Phase, settings

from bench.mutation import mutated

MEMORY = 8 * 2**30  # bytes of data of a process: a mutant may ask for an array of any size


def _install(path: Path, index: int) -> None:
    """Lets the module of this path, under whatever link it is imported, be its mutant of this index."""
    read = importlib.machinery.SourceFileLoader.get_code

    def get_code(self: importlib.machinery.SourceFileLoader, fullname: str) -> CodeType | None:
        if Path(self.path).resolve() != path:
            return read(self, fullname)
        return compile(mutated(path.read_text(encoding="utf-8"), index), self.path, "exec", dont_inherit=True)

    importlib.machinery.SourceFileLoader.get_code = get_code


def pytest_configure() -> None:
    """The profile that tests/conftest.py has loaded, without the phases that explain a failure."""
    settings.register_profile("mutant", settings.default, phases=(Phase.explicit, Phase.generate))
    settings.load_profile("mutant")


resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
if "VIVIT_MUTANT" in os.environ:
    _index, _, _path = os.environ["VIVIT_MUTANT"].partition(" ")
    _install(Path(_path).resolve(), int(_index))
