"""From a video to tokens, as in reference/tubelet.py. Frame indices and checks are imported from there."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32, Shaped

from vivit.reference import tubelet as reference
from vivit.reference.config import COLORS, Config
from vivit.reference.params import Dense
from vivit.reference.tubelet import check_frames_valid, check_video, frame_indices


def pixels(video: Shaped[Array, "*video"]) -> Float32[Array, "*video"]:
    """Scales uint8 0…255 to float32 −1…1, the published preprocessing. Converts floats to float32 without scaling."""
    floats = video.astype(jnp.float32)
    return floats / 127.5 - 1.0 if video.dtype == jnp.uint8 else floats


def select_frames(
    video: Shaped[Array, "b frames height width colors"],
    sampled_frames: int | None,
    frames_valid: Int[Array, " b"] | None,
) -> tuple[Shaped[Array, "b slots height width colors"], Int32[Array, " b"] | None]:
    """Selects all frames, or n sampled uniformly from the first frames_valid frames of each example.

    video: [b frames height width colors]. frames_valid: int[b]; later frames are not read, and the last selected frame
    is repeated in their place. Returns (video with n or all frames, int32[b] number of frames that are not repeats or
    None).
    """
    frames = video.shape[1]
    slots = frames if sampled_frames is None else min(sampled_frames, frames)
    if frames_valid is None:
        return (video if slots == frames else video[:, frame_indices(frames, slots)]), None
    choices = np.stack([_repeat_last(frame_indices(valid, slots), slots) for valid in range(1, frames + 1)])
    valid = jnp.clip(frames_valid.astype(jnp.int32), 1, frames)
    indices = jnp.asarray(choices, jnp.int32)[valid - 1]  # [b slots]
    clip = jnp.take_along_axis(video, indices[:, :, jnp.newaxis, jnp.newaxis, jnp.newaxis], axis=1)
    return clip, jnp.minimum(valid, slots)


def _repeat_last(indices: Int[np.ndarray, " found"], slots: int) -> Int[np.ndarray, " slots"]:
    """Repeats the last index up to a length of `slots`."""
    return indices[np.minimum(np.arange(slots), len(indices) - 1)]


def patches(
    video: Shaped[Array, "b frames height width colors"], tubelet: tuple[int, int, int]
) -> Shaped[Array, "b t s p"]:
    """Cuts a video into non-overlapping tubelets and returns their raw pixels, without a projection.

    Source: Arnab et al. 2021, figure 3. video: [b frames height width colors]. Returns [b t s p], dtype of video.
    Raises ValueError if sizes do not divide.
    """
    b, frames, height, width, colors = video.shape
    time_size, height_size, width_size = tubelet
    if frames % time_size or height % height_size or width % width_size:
        raise ValueError(f"video is {frames}x{height}x{width}: it must divide by the tubelet {tubelet}")
    t, rows, columns = frames // time_size, height // height_size, width // width_size
    cut = video.reshape(b, t, time_size, rows, height_size, columns, width_size, colors)
    cut = cut.transpose(0, 1, 3, 5, 2, 4, 6, 7)  # b t rows columns | time height width colors
    return cut.reshape(b, t, rows * columns, time_size * height_size * width_size * colors)


def cut(
    video: Shaped[np.ndarray, "b frames height width colors"],
    config: Config,
    frames_valid: Int[np.ndarray, " b"] | None = None,
) -> tuple[Shaped[np.ndarray, "b t s p"], Int[np.ndarray, " b"] | None]:
    """Cuts a video into patches [b t s p] on the host; pass them to `forward` as `video`. Keeps the dtype.

    On a TPU v3, cutting costs more than a layer of the encoder, because three colors fill 3 of 128 lanes. Patches cut
    on the host are transferred as uint8, and the embedding is one matmul. video: [b frames height width colors], of the
    config's size. frames_valid: int[b], as in `forward`. Returns (patches, frames_valid for `forward`, None for None).
    Raises ValueError if video or frames_valid do not fit.
    """
    check_video(video.shape, video.dtype.name, config)
    if frames_valid is not None:
        check_frames_valid(np.asarray(frames_valid), video.shape)
        video, frames_valid = reference.select_frames(video, config.sampled_frames, np.asarray(frames_valid))
    elif config.sampled_frames is not None:
        video = video[:, frame_indices(config.frames, config.sampled_frames)]
    return reference.patches(video, config.tubelet), frames_valid


def check_patches(shape: tuple[int, ...], config: Config) -> None:
    """Raises ValueError unless shape is [b t s p] with the config's sizes."""
    time, height, width = config.grid
    wanted = (time, height * width, int(np.prod(config.tubelet)) * COLORS)
    if shape == (config.frames, config.height, config.width, COLORS):
        raise ValueError(f"video has shape {shape}, that of one clip: it must be [b {' '.join(map(str, shape))}]")
    if shape[0] < 1 or shape[1:] != wanted:
        raise ValueError(
            f"patches have shape {tuple(shape)}: they must be [b {' '.join(map(str, wanted))}], b at least 1"
        )


@jax.jit
def embed(
    video: Shaped[Array, "b frames height width colors"] | Shaped[Array, "b t s p"], params: Dense
) -> Float32[Array, "b t s c"]:
    """Tubelet embedding: patches times the kernel as one matrix, in float32.

    Source: Arnab et al. 2021, section 3.2. video: [b frames height width colors] or its patches [b t s p], uint8 or
    float. kernel [time height width colors c]. Returns float32[b t s c].
    """
    time, height, width, colors, c = params.kernel.shape
    kernel = params.kernel.astype(jnp.float32).reshape(time * height * width * colors, c)
    values = pixels(video if video.ndim == 4 else patches(video, (time, height, width)))
    tokens = jnp.einsum("btsp,pc->btsc", values, kernel, preferred_element_type=jnp.float32)
    return tokens + params.bias.astype(jnp.float32)[jnp.newaxis, jnp.newaxis, jnp.newaxis]


def inflate(
    image_kernel: Float[Array, "height width colors c"], time: int
) -> Float[Array, "time height width colors c"]:
    """Filter inflation: E = [E_image, …, E_image] / t.

    Source: Arnab et al. 2021, eq. 8. image_kernel: float[height width colors c]. Returns [time height width colors c].
    """
    return jnp.broadcast_to(image_kernel[jnp.newaxis] / time, (time, *image_kernel.shape))


def central_frame(
    image_kernel: Float[Array, "height width colors c"], time: int
) -> Float[Array, "time height width colors c"]:
    """Central frame initialisation: E = [0, …, E_image, …, 0], the image kernel at ⌊t/2⌋ of the time axis.

    Source: Arnab et al. 2021, eq. 9. image_kernel: float[height width colors c]. Returns [time height width colors c].
    """
    kernel = jnp.zeros((time, *image_kernel.shape), image_kernel.dtype)
    return kernel.at[time // 2].set(image_kernel)
