"""Shards whose process ended before they were finished: by a video that crashes the decoder, or for lack of memory.

A note beside the shard's file says that it was begun. Where there is one, the videos are computed one by one, each
noted before; a video that was begun DEATHS times in this way, and never finished, becomes an error.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

PREFIX, SUFFIX = ".", ".begun"  # of a note
DEATHS = 2

Result = TypeVar("Result")


def forget_attempts(folder: Path) -> None:
    """Removes the notes of an earlier run, which may have been killed itself."""
    for note in folder.glob(f"{PREFIX}*{SUFFIX}"):
        note.unlink(missing_ok=True)


def attempted(
    shard: Path,
    names: Sequence[str],
    compute: Callable[[Sequence[str]], Iterator[Result]],
    failed: Callable[[str, ValueError], Result],
) -> Iterator[Result]:
    """Yields the result of every video of a shard, in order.

    shard: the path of its file. compute: from names to their results. failed: the result of a video with an error.
    """
    note = shard.with_name(f"{PREFIX}{shard.name}{SUFFIX}")
    if not note.exists():
        note.touch()
        yield from compute(names)
    else:
        begun = note.read_text("utf-8").splitlines()
        for index, name in enumerate(names):
            if begun.count(str(index)) >= DEATHS:
                yield failed(name, ValueError(f"{name} ended the process that computed it, {DEATHS} times"))
                continue
            note.write_text("\n".join([*begun, str(index)]), "utf-8")
            yield from compute([name])
    note.unlink(missing_ok=True)
