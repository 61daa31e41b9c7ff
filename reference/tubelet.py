"""From a video to tokens: frame sampling, tubelets, and their embedding.

Positions are added later (positions.py), because each encoder has its own.
"""

import numpy as np

from vivit.reference.config import COLORS, Config
from vivit.reference.params import Dense


def check_video(shape: tuple[int, ...], dtype: str, config: Config, *, resize: bool = False) -> tuple[int, int, int]:
    """Returns the token grid (time, height, width) of a video that fits the config.

    Raises ValueError, naming the value and the requirement, if shape is not [b frames height width colors] with at
    least one example, if dtype is neither uint8 nor a float, if a size is not a multiple of the tubelet's, or if the
    sizes are not the config's and `resize` is False.
    """
    if len(shape) != 5 or shape[4] != COLORS:
        raise ValueError(f"video has shape {tuple(shape)}: it must be [b frames height width {COLORS}]")
    if shape[0] < 1:
        raise ValueError("video has 0 examples: it must have at least 1")
    if dtype != "uint8" and "float" not in dtype:
        raise ValueError(f"video has dtype {dtype}: it must be uint8 (0 to 255) or a float type (already preprocessed)")
    size, wanted = shape[1:4], (config.frames, config.height, config.width)
    if size != wanted and not resize:
        hint = "; for shorter clips pad the frames and pass frames_valid" if size[0] < wanted[0] else ""
        raise ValueError(
            f"video has (frames, height, width) {size}: the config has {wanted}; "
            f"pass resize=True to resize the positions{hint}"
        )
    return config.grid_of(*size)


def check_frames_valid(frames_valid: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless frames_valid is int[b], each from 1 to the number of frames of a video of this shape."""
    if frames_valid.shape != shape[:1] or frames_valid.dtype.kind not in "iu":
        raise ValueError(
            f"frames_valid is {frames_valid.dtype}{list(frames_valid.shape)}: it must be int[b] with b = {shape[0]}"
        )
    if frames_valid.min() < 1 or frames_valid.max() > shape[1]:
        raise ValueError(f"frames_valid is {frames_valid.tolist()}: each must be from 1 to the video's {shape[1]}")


def pixels(video: np.ndarray) -> np.ndarray:
    """Scales uint8 0…255 to float64 −1…1, the published preprocessing. Leaves the values of floats unchanged."""
    return video / 127.5 - 1.0 if video.dtype == np.uint8 else video.astype(np.float64)


def frame_indices(frames: int, sampled_frames: int) -> np.ndarray:
    """Returns the indices that uniform sampling selects from T frames: k·T/(n+1) for k = 1…n, at most T − 1.

    Source: Arnab et al. 2021, section 3.2; rounds half to even as the published code does. Returns int[n], or all T
    indices if n ≥ T.
    Differs from the source: integer arithmetic, which never selects n + 1 frames.
    """
    if sampled_frames >= frames:
        return np.arange(frames)
    k = np.arange(1, sampled_frames + 1)
    quotient, remainder = np.divmod(k * frames, sampled_frames + 1)
    doubled = 2 * remainder
    up = (doubled > sampled_frames + 1) | ((doubled == sampled_frames + 1) & (quotient % 2 == 1))
    return np.minimum(quotient + up, frames - 1)


def select_frames(
    video: np.ndarray, sampled_frames: int | None, frames_valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Selects all frames, or n sampled uniformly from the first frames_valid frames of each example.

    Source: Arnab et al. 2021, section 3.2, "uniform frame sampling". video: [b frames height width colors].
    frames_valid: int[b]; later frames are not read. If fewer frames than slots are valid, the last one is repeated,
    which completes a partly filled tubelet with a still image. Returns (video with n or all frames, int[b] number of
    frames that are not repeats).
    """
    frames = video.shape[1]
    slots = frames if sampled_frames is None else min(sampled_frames, frames)
    clips, counts = [], []
    for clip, valid in zip(video, frames_valid, strict=True):
        indices = frame_indices(int(valid), slots)
        clips.append(clip[indices[np.minimum(np.arange(slots), len(indices) - 1)]])
        counts.append(len(indices))
    return np.stack(clips), np.array(counts)


def patches(video: np.ndarray, tubelet: tuple[int, int, int]) -> np.ndarray:
    """Cuts a video into non-overlapping tubelets and returns their raw pixels, without a projection.

    Source: Arnab et al. 2021, figure 3. video: [b frames height width colors]. Returns [b t s p]: s is in row-major
    order; p is the tubelet's (time, height, width, colors). Raises ValueError if sizes do not divide.
    """
    b, frames, height, width, colors = video.shape
    time_size, height_size, width_size = tubelet
    if frames % time_size or height % height_size or width % width_size:
        raise ValueError(f"video is {frames}x{height}x{width}: it must divide by the tubelet {tubelet}")
    t, rows, columns = frames // time_size, height // height_size, width // width_size
    cut = video.reshape(b, t, time_size, rows, height_size, columns, width_size, colors)
    cut = cut.transpose(0, 1, 3, 5, 2, 4, 6, 7)  # b t rows columns | time height width colors
    return cut.reshape(b, t, rows * columns, time_size * height_size * width_size * colors)


def embed(video: np.ndarray, params: Dense) -> np.ndarray:
    """Tubelet embedding: projects each tubelet's pixels with one kernel. A kernel of one frame gives ViT's patches.

    Source: Arnab et al. 2021, section 3.2, "tubelet embedding" (a 3-D convolution whose stride equals its kernel size).
    video: float[b frames height width colors]. kernel [time height width colors c]. Returns float[b t s c].
    """
    time, height, width, colors, c = params.kernel.shape
    kernel = params.kernel.reshape(time * height * width * colors, c)
    return patches(video, (time, height, width)) @ kernel + params.bias


def inflate(image_kernel: np.ndarray, time: int) -> np.ndarray:
    """Filter inflation: E = [E_image, …, E_image] / t. A still video then has the tokens of the image.

    Source: Arnab et al. 2021, eq. 8. image_kernel: float[height width colors c]. Returns [time height width colors c].
    """
    return np.repeat(image_kernel[np.newaxis], time, axis=0) / time


def central_frame(image_kernel: np.ndarray, time: int) -> np.ndarray:
    """Central frame initialisation: E = [0, …, E_image, …, 0], the image kernel at ⌊t/2⌋ of the time axis.

    Source: Arnab et al. 2021, eq. 9. image_kernel: float[height width colors c]. Returns [time height width colors c].
    """
    kernel = np.zeros((time, *image_kernel.shape))
    kernel[time // 2] = image_kernel
    return kernel
