"""The kinds of what a run of `vivit train` may be told beside a recipe's fields, from its JSON file or its flags."""

from typing import Any

from vivit.json_files import Fields

TEXTS = ("data", "recipe", "model", "start", "image", "folder", "broken", "cache", "address")
COUNTS = ("save_every", "keep", "validate_every", "patience", "threads", "processes")
SWITCHES = ("multi_label", "cluster")
OWN = {*TEXTS, *COUNTS, *SWITCHES, "process", "heads", "mesh", "memory"}


def checked(said: Fields) -> dict[str, Any]:
    """What was said, where it is of the kind that it must be; None is not said. A recipe checks its own fields.

    Raises ValueError that names the file, the choice, its value and what it must be.
    """
    given = {name: value for name, value in said.values.items() if value is not None or name not in OWN}
    said = Fields(given, said.where)
    for name in said.values.keys() & {*TEXTS}:
        if said.text(name) == "":
            raise said.wrong(name, "a text that is not empty")
    for name in said.values.keys() & {*COUNTS}:
        said.count(name)
    for name in said.values.keys() & {*SWITCHES}:
        said.flag(name)
    said.count("process", None, least=0)
    if "heads" in said and not said.texts("heads"):
        raise said.wrong("heads", "names of columns, at least one")
    said.counts("mesh", 3, None)
    if "memory" in said and not 0 < said.number("memory") <= 1e9:
        raise said.wrong("memory", "gigabytes, more than 0 and at most 1e9")
    return said.values
