"""Writes the digit carousel, a dataset of videos whose labels cannot be predicted without temporal information.

A handwritten digit moves around eight positions of the frame, clockwise by 1, 3, 5 or 7 positions per frame. The step
is the verb, the digit is the noun. Every odd step visits all eight positions, so eight frames have the same contents
for every verb, in a different order: a model that ignores the order predicts one verb in four correctly.

The files are ordinary videos in ordinary tables; reading.py reads them.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from vivit.data.dataset_files import check_counts, write_dataset
from vivit.files.atomic import check_folder
from vivit.reference.values import quoted

STEPS = (1, 3, 5, 7)  # odd, so that each visits all positions; 5 and 7 are 3 and 1 counter-clockwise
VERBS = tuple(f"clockwise-{step}" for step in STEPS)
NOUNS = tuple(f"digit-{digit}" for digit in range(10))
SPLITS = ("train", "validation", "test")
HELD_OUT = 300  # scans for validation, and as many for test; the other 1197 are for training

# Upper left corners (row, column) of the digit, clockwise: a ring of radius four around the centre of the frame. The
# ring is small so that motion changes the pixels inside patches of 8 x 8. If every position were a patch of its own,
# motion would show only in the positions of tokens, which a small model 1 did not learn in 2,000 steps. A margin of
# four pixels allows shifts and crops. 24 pixels are three patches, and the middle patch sees every position.
SCAN, SIZE = 8, 24
PLACES = ((4, 8), (5, 11), (8, 12), (11, 11), (12, 8), (11, 5), (8, 4), (5, 5))


class Video(NamedTuple):
    """The parameters of one video."""

    path: str  # relative to the folder of the dataset
    scan: int  # index of the scan
    verb: int  # index in STEPS and VERBS
    phase: int  # position in the first frame
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

    The videos are lossless (FFV1 in Matroska), 24 x 24 pixels, 8 frames per second. Four videos, one for each verb,
    share scan and phase, so that verbs are balanced in every split. No scan is in two splits; with the default numbers,
    every scan is used once per verb. The same arguments give the same bytes. The folder is written atomically.
    train, validation, test: numbers of videos, multiples of four. frames: 8 or 16; read them at stride 1, because
    another stride changes the verb. progress: called with (videos written, total). Returns the contents of
    carousel.json.

    Raises ValueError if a number is invalid or the folder exists and is not empty.
    """
    counts = {"train": train, "validation": validation, "test": test}
    check_counts(seed, counts, len(STEPS))
    if frames not in (len(PLACES), 2 * len(PLACES)):
        raise ValueError(f"frames is {quoted(frames)}: it must be {len(PLACES)} or {2 * len(PLACES)}")
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
    rows = {
        split: [(video.path, VERBS[video.verb], NOUNS[video.noun]) for video in listed]
        for split, listed in videos.items()
    }

    def write(path: Path, split: str, index: int) -> None:
        video = videos[split][index]
        write_lossless(path, render(scans[video.scan], STEPS[video.verb], video.phase, frames))

    write_dataset(folder, ("path", "verb", "noun"), rows, write, card=("carousel.json", card), progress=progress)
    return card


def load_scans() -> tuple[np.ndarray, np.ndarray]:
    """Returns (scans uint8[1797 8 8], white on black; digits uint8[1797]) of digits.npz. Source: README.md."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as arrays:
        return np.round(arrays["scans"] * (255 / 16)).astype(np.uint8), arrays["digits"]


def plan(split: str, count: int, digits: np.ndarray, *, seed: int) -> Iterator[Video]:
    """Yields the parameters of the videos of one split. digits: int[scans], the digit of every scan."""
    shuffled = np.random.default_rng([seed, 0]).permutation(len(digits))
    which = SPLITS.index(split)
    mine = np.split(shuffled, [len(digits) - 2 * HELD_OUT, len(digits) - HELD_OUT])[which]
    phases = np.random.default_rng([seed, 1 + which]).integers(len(PLACES), size=count // len(STEPS))
    for index in range(count):
        four, verb = divmod(index, len(STEPS))
        scan = int(mine[four % len(mine)])
        yield Video(f"{split}/{index:05}.mkv", scan, verb, int(phases[four]), int(digits[scan]))


def render(scan: np.ndarray, step: int, phase: int, frames: int) -> np.ndarray:
    """Returns uint8[frames 24 24]: frame i has the scan uint8[8 8] at position (phase + i·step) mod 8, on black."""
    clip = np.zeros((frames, SIZE, SIZE), np.uint8)
    for index in range(frames):
        top, left = PLACES[(phase + index * step) % len(PLACES)]
        clip[index, top : top + SCAN, left : left + SCAN] = scan
    return clip


def write_lossless(path: Path, clip: np.ndarray) -> None:
    """Writes a grey clip, uint8[frames height width], without loss. The same pixels give the same bytes."""
    # bitexact: no random identifier and no version in the file; one thread: the frames are too small for several
    options = {"flags": "+bitexact", "threads": "1"}
    with av.open(str(path), "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("ffv1", rate=8, options=options)
        _, stream.height, stream.width = clip.shape
        stream.pix_fmt = "gray"
        for picture in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray")))
        container.mux(stream.encode(None))
