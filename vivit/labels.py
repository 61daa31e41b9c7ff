"""Reads the names of classes: one of two lists in the package, or a file."""

from importlib import resources
from pathlib import Path

from vivit.files.json_files import parse_json
from vivit.files.paths import as_path, is_file
from vivit.reference.config import Config
from vivit.reference.values import quoted

Labels = tuple[tuple[str, ...], ...]  # one tuple of names per head

SHIPPED = {"kinetics400": "kinetics400.json", "something_something_v2": "something_something_v2.json"}
MAX_BYTES = 2**24  # of a file


def read_labels(source: str | Path) -> Labels:
    """Returns the class names of every head, in the order of the logits.

    source: "kinetics400" or "something_something_v2", which the package contains; or a file: JSON (a list of names, a
    list of such lists, one per head, or a map from index to name), or text with one name per line.
    Raises ValueError, naming the file and the requirement, for other sources and contents.
    """
    if str(source) in SHIPPED:
        text = resources.files("vivit").joinpath("label_names", SHIPPED[str(source)]).read_text("utf-8")
        return as_labels(parse_json(text, str(source)))
    path = as_path(source)
    if not is_file(path):
        raise ValueError(f"labels {source} is no file: it must be one, or one of {', '.join(SHIPPED)}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"labels {source} has {path.stat().st_size:,} bytes: it must have at most {MAX_BYTES:,}")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"labels {source} is no UTF-8 text: it must be JSON, or have one name per line") from None
    try:
        value = parse_json(text, f"labels {source}")
    except ValueError:
        if path.suffix == ".json":
            raise
        value = [line.strip() for line in text.splitlines() if line.strip()]
    return as_labels(value, f"labels {source}")


def as_labels(value: object, name: str = "labels") -> Labels:
    """Returns Labels from a list of names, a list of lists (one per head), or a map from index to name.

    Raises ValueError unless all names are texts and indices are 0, 1, 2, … name: of the value, for errors.
    """
    if isinstance(value, dict):
        try:
            numbered = {int(number): label for number, label in value.items()}
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{name}: the keys of a map must be the numbers of the classes, from 0") from None
        if sorted(numbered) != list(range(len(value))):
            most = quoted(max(numbered))
            raise ValueError(f"{name} numbers {len(value)} classes up to {most}: it must be each from 0")
        value = [numbered[number] for number in range(len(numbered))]
    heads = list(value) if isinstance(value, (list, tuple)) else []
    if heads and not any(isinstance(label, (list, tuple)) for label in heads):
        heads = [heads]
    names = [label for head in heads if isinstance(head, (list, tuple)) for label in head]
    if not heads or not all(isinstance(head, (list, tuple)) and head for head in heads):
        raise ValueError(f"{name} must be a list of names, a list of such lists (one per head) or a map number: name")
    if not all(isinstance(label, str) for label in names):
        wrong = next(label for label in names if not isinstance(label, str))
        raise ValueError(f"{name} has {quoted(wrong)}: every name must be a text")
    return tuple(tuple(head) for head in heads)


def default_labels(config: Config) -> Labels:
    """Returns "class 0", "class 1", … for every head, for a model without class names."""
    return tuple(tuple(map(unnamed, range(count))) for count in config.classes)


def unnamed(number: int) -> str:
    """Returns the name of a class without a name."""
    return f"class {number}"


def default_heads(config: Config) -> tuple[str, ...]:
    """Returns "head 1", "head 2", …, for a model without names of heads."""
    return tuple(f"head {number + 1}" for number in range(len(config.classes)))


def check_heads(heads: tuple[str, ...], config: Config) -> None:
    """Raises ValueError unless heads has a different name for each of the config's heads."""
    texts = isinstance(heads, tuple) and all(isinstance(name, str) and name for name in heads)
    if not texts or len(set(heads)) != len(heads) or len(heads) != len(config.classes):
        raise ValueError(f"heads is {heads!r:.200}: it must be {len(config.classes)} different names, one per head")


def check_labels(labels: Labels, config: Config) -> None:
    """Raises ValueError unless labels has one name for each class of the config's heads."""
    counts = tuple(len(head) for head in labels)
    if counts != config.classes:
        raise ValueError(f"labels has {quoted(counts)} names: the config has classes {quoted(config.classes)}")
