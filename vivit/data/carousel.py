"""The digit carousel: a labelled data set of real video files that nobody can solve without looking at time.

A scan of a handwritten digit hops round eight places of the frame, 1, 3, 5 or 7 places clockwise at a time. The motion
is the verb, the digit the noun. An odd step visits all eight places before it returns, so eight frames show the same
pictures whatever the verb, in another order: without the order of time a model is right on one verb in four.

It leaves out how the files are read again: they are ordinary videos, named in ordinary tables.
"""

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from vivit.writing import check_folder, new_folder

STEPS = (1, 3, 5, 7)  # odd, so that each visits all places; 5 and 7 are 3 and 1 the other way round
VERBS = tuple(f"clockwise-{step}" for step in STEPS)
NOUNS = tuple(f"digit-{digit}" for digit in range(10))
SPLITS = ("train", "validation", "test")
HELD_OUT = 300  # scans for validation, and as many for the test; the other 1197 are for training

# Where the scan's upper left corner goes, (row, column), clockwise: a ring of four pixels about the frame's centre. It
# is that narrow so that patches of 8 x 8 pixels see a digit come and go: where each place is a patch of its own, a hop
# shows in the positions of tokens alone, and a small model 1 did not find it in 2,000 steps. Four pixels are left round
# it for shifts and crops, and 24 are three patches, of which the middle one sees every place.
SCAN, SIZE = 8, 24
PLACES = ((4, 8), (5, 11), (8, 12), (11, 11), (12, 8), (11, 5), (8, 4), (5, 5))


class Video(NamedTuple):
    """One video of the carousel, as numbers."""

    path: str  # relative to the data set's folder
    scan: int  # which of the scans
    verb: int  # index in STEPS and VERBS
    phase: int  # the place of the first frame
    noun: int  # index in NOUNS


def write_carousel(
    folder: str | Path,
    *,
    seed: int = 0,
    train: int = 4788,
    validation: int = 1200,
    test: int = 1200,
    frames: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Writes train.csv, validation.csv, test.csv (path, verb, noun), their videos and carousel.json into a new folder.

    The videos are lossless (FFV1 in Matroska), 24 x 24 pixels, 8 frames a second. They come in fours: one scan, one
    phase, all four verbs, so the verbs are balanced in every split. No scan is in two splits; with the default numbers
    every scan is used once a verb. The same arguments give the same bytes. The folder appears when all is written.
    train, validation, test: how many videos, multiples of four. frames: 8 or 16; read them at stride 1, since another
    stride makes another motion. progress: is called with (videos written, videos in all).
    Returns what carousel.json says.

    Raises ValueError if a number does not fit, if the folder is there and not empty, or without scikit-learn.
    """
    counts = {"train": train, "validation": validation, "test": test}
    _check(seed, counts, frames)
    folder = Path(folder)
    check_folder(folder, new=True)
    scans, digits = load_scans()
    videos = {split: list(plan(split, counts[split], digits, seed=seed)) for split in SPLITS}
    card = {
        "name": "digit carousel",
        "seed": seed,
        "frames": frames,
        "height": SIZE,
        "width": SIZE,
        "stride": 1,
        "videos": counts,
        "scans": {split: len({video.scan for video in videos[split]}) for split in SPLITS},
        "verbs": list(VERBS),
        "nouns": list(NOUNS),
    }
    with new_folder(folder) as partial:
        _write_all(partial, videos, scans, frames, progress)
        (partial / "carousel.json").write_text(json.dumps(card, indent=2) + "\n")
    return card


def load_scans() -> tuple[np.ndarray, np.ndarray]:
    """(uint8[1797 8 8], black to white; int[1797], the digit of each), the scans that scikit-learn comes with.

    Raises ValueError if it is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ValueError('scikit-learn is not installed: install it with: pip install "vivit[train]"') from None
    data, target = load_digits(return_X_y=True)
    scans = np.round(np.asarray(data) * (255 / 16)).astype(np.uint8)
    return scans.reshape(len(scans), SCAN, SCAN), np.asarray(target)


def plan(split: str, count: int, digits: np.ndarray, *, seed: int) -> Iterator[Video]:
    """The videos of one split, in fours that differ in the verb alone. digits: int[scans], the digit of each."""
    shuffled = np.random.default_rng([seed, 0]).permutation(len(digits))
    which = SPLITS.index(split)
    mine = np.split(shuffled, [len(digits) - 2 * HELD_OUT, len(digits) - HELD_OUT])[which]
    phases = np.random.default_rng([seed, 1 + which]).integers(len(PLACES), size=count // len(STEPS))
    for index in range(count):
        four, verb = divmod(index, len(STEPS))
        scan = int(mine[four % len(mine)])
        yield Video(f"{split}/{index:05}.mkv", scan, verb, int(phases[four]), int(digits[scan]))


def render(scan: np.ndarray, step: int, phase: int, frames: int) -> np.ndarray:
    """uint8[frames 24 24]: in frame i the scan uint8[8 8] is at place (phase + i·step) mod 8, the rest is black."""
    clip = np.zeros((frames, SIZE, SIZE), np.uint8)
    for index in range(frames):
        top, left = PLACES[(phase + index * step) % len(PLACES)]
        clip[index, top : top + SCAN, left : left + SCAN] = scan
    return clip


def write_lossless(path: Path, clip: np.ndarray) -> None:
    """A grey clip uint8[frames height width] as a video file whose decoded pixels are the same, and bytes too."""
    # bitexact: no random identifier and no version in the file; one thread: these frames are too small to share out
    options = {"flags": "+bitexact", "threads": "1"}
    with av.open(str(path), "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("ffv1", rate=8, options=options)
        _, stream.height, stream.width = clip.shape
        stream.pix_fmt = "gray"
        for picture in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray")))
        container.mux(stream.encode(None))


def _write_all(
    folder: Path, videos: dict[str, list[Video]], scans: np.ndarray, frames: int, progress: Callable | None
) -> None:
    done, total = 0, sum(map(len, videos.values()))
    for split, listed in videos.items():
        (folder / split).mkdir()
        for video in listed:
            write_lossless(folder / video.path, render(scans[video.scan], STEPS[video.verb], video.phase, frames))
            done += 1
            if progress is not None:
                progress(done, total)
        rows = ((video.path, VERBS[video.verb], NOUNS[video.noun]) for video in listed)
        _write_table(folder / f"{split}.csv", itertools.chain([("path", "verb", "noun")], rows))


def _write_table(path: Path, rows: Iterable[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _check(seed: int, counts: dict[str, int], frames: int) -> None:
    if type(seed) is not int or seed < 0:
        raise ValueError(f"seed is {seed!r}: it must be an integer, 0 or more")
    for split, count in counts.items():
        if type(count) is not int or count < 1 or count % len(STEPS):
            raise ValueError(f"{split} is {count!r}: it must be a positive multiple of {len(STEPS)}")
    if frames not in (len(PLACES), 2 * len(PLACES)):
        raise ValueError(f"frames is {frames!r}: it must be {len(PLACES)} or {2 * len(PLACES)}")
