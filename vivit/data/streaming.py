"""A whole video picture after picture, however long it is: nothing is kept."""

from collections.abc import Iterator

import numpy as np

from vivit.data.decoding import wanted_frames
from vivit.data.opening import FAILURES, Limits
from vivit.data.pictures import Fit, Placement, Tables, check_pictures, fill, upright_size
from vivit.data.probing import Video


def stream_frames(
    video: Video, indices: np.ndarray, *, fit: Fit, limits: Limits | None = None, threads: int = 0
) -> Iterator[tuple[int, np.ndarray]]:
    """Pairs of a frame's number and its picture uint8[height width 3], in order, each decoded when it is asked for.

    indices: int[f], increasing. fit, limits, threads: as decoding.read_frames's, and the same pixels come out.
    Raises ValueError as that, when it comes to the frame.
    """
    placement: Placement | None = None
    tables = Tables()
    coming = 0  # rows are counted: after a jump that misled, decoding starts again
    for row, frame in wanted_frames(video.path, indices, video.table, limits, threads):
        if row < coming:
            continue
        coming = row + 1
        if placement is None:
            placement = fit(*upright_size(frame))
            check_pictures(video.path, placement, 1, limits or Limits())
        picture = np.empty((placement.tall, placement.wide, 3), np.uint8)
        try:
            fill(picture, frame, placement, tables)
        except FAILURES as error:
            raise ValueError(f"{video.path} has a picture that cannot be converted: {error}") from None
        yield int(indices[row]), picture
