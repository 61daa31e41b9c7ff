"""Print a pip constraint `name==floor` for every requirement of pyproject.toml, those of its extras included."""

import re
import tomllib
from pathlib import Path

REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[[\w,]+\])?(>=|==)(?P<floor>[\d.]+)")


def floors(pyproject):
    """The constraints, sorted; raises ValueError for a requirement that is neither name>=floor nor name==version."""
    project = pyproject["project"]
    lists = pyproject["build-system"]["requires"], project["dependencies"], *project["optional-dependencies"].values()
    constraints = set()
    for requirement in (requirement for group in lists for requirement in group):
        if requirement.startswith(f"{project['name']}["):
            continue  # names extras of our own
        found = REQUIREMENT.fullmatch(requirement)
        if not found:
            raise ValueError(f"{requirement!r} in pyproject.toml: it must be name>=floor or name==version")
        constraints.add(f"{found['name']}=={found['floor']}")
    return sorted(constraints)


if __name__ == "__main__":
    pyproject = Path(__file__).parent.parent / "pyproject.toml"
    print(*floors(tomllib.loads(pyproject.read_text(encoding="utf-8"))), sep="\n")
