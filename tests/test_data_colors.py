"""Pixels against Pillow and a definition: chroma siting, clipping, scaling at the borders."""

from functools import partial

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from videos import Coding, encode

from vivit.video import scale
from vivit.video.crops import cover
from vivit.video.decode import read_frames

pytestmark = pytest.mark.fast

HEIGHT, WIDTH = 90, 124
LOSSLESS = {"x264-params": "qp=0"}
DEEP = {"4:2:0": "yuv420p10le", "4:2:2": "yuv422p10le"}


def waves():
    """uint8[1 height width 3]: saturated colors that change from pixel to pixel, up to the borders."""
    down, across = np.mgrid[:HEIGHT, :WIDTH]
    phases = np.stack([across / 3 + down / 7, across / 4 + 1 + down / 9, across / 5 + down / 3], axis=-1)
    return np.uint8(np.rint(128 + 120 * np.sin(phases)))[np.newaxis]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Returns a function from a codec and a pixel format to a file of one frame and PyAV's decoded frame."""
    folder, known = tmp_path_factory.mktemp("colors"), {}

    def get(codec, pixels):
        if (codec, pixels) not in known:
            path = folder / f"{codec}-{pixels}.mkv"
            encode(path, waves(), Coding(codec, pixels, LOSSLESS if codec == "libx264" else {}))
            with av.open(str(path)) as container:
                known[codec, pixels] = path, next(container.decode(video=0))
        return known[codec, pixels]

    return get


def scaled(path, height, width):
    return read_frames(path, [0], fit=partial(cover, tall=height, wide=width, resize=(height, width)))[0]


SIZES = st.tuples(st.sampled_from([1, 2, 37, 45, 89, 90, 91, 190]), st.sampled_from([1, 3, 31, 77, 124, 125, 301]))


@given(st.sampled_from([("ffv1", "bgr0"), ("ffv1", "yuv444p"), ("libx264", "yuv420p"), ("ffv1", "yuv420p10le")]), SIZES)
def test_a_scaled_picture_is_that_of_pillow_to_its_borders(stored, kind, size):
    path, _ = stored(*kind)
    whole = Image.fromarray(read_frames(path, [0])[0])
    expected = np.asarray(whole.resize(size[::-1], Image.Resampling.BILINEAR), np.int64)
    assert abs(scaled(path, *size) - expected).max() <= 1


@given(SIZES, st.integers(0, 3), st.integers(0, 3))
def test_a_crop_is_a_window_of_the_scaled_frame(stored, size, down, across):
    path, _ = stored("ffv1", "yuv444p")
    tall, wide = max(1, size[0] - down), max(1, size[1] - across)
    top, left = (size[0] - tall) // 2, (size[1] - wide) // 2
    window = read_frames(path, [0], fit=partial(cover, tall=tall, wide=wide, resize=size))[0]
    assert np.array_equal(window, scaled(path, *size)[top : top + tall, left : left + wide])


def test_a_picture_of_eight_bits_in_its_own_size_is_that_of_pyav(stored):
    for pixels in ("yuv420p", "yuv422p", "yuv444p"):
        path, frame = stored("libx264", pixels)
        assert np.array_equal(read_frames(path, [0])[0], frame.to_ndarray(format="rgb24"))


def by_definition(frame, pixels):
    """Converts a 10-bit frame by ITU-R BT.601 with interpolated chroma: float64[height width 3].

    Chroma samples are at every second pixel of a row, and with 4:2:0 halfway between two rows.
    """
    luma, *colors = (
        np.frombuffer(plane, np.uint16).reshape(-1, plane.line_size // 2)[: plane.height, : plane.width] / 4
        for plane in frame.planes
    )
    down, across = (np.arange(HEIGHT) / 2 - 0.25, np.arange(WIDTH) / 2)
    if pixels == DEEP["4:2:2"]:
        down = np.arange(HEIGHT)
    blue, red = ((between(down, plane.shape[0]) @ plane @ between(across, plane.shape[1]).T) for plane in colors)
    luma, blue, red = 255 / 219 * (luma - 16), 255 / 224 * (blue - 128), 255 / 224 * (red - 128)
    green = luma - (0.114 * 1.772 * blue + 0.299 * 1.402 * red) / 0.587
    return np.clip(np.stack([luma + 1.402 * red, green, luma + 1.772 * blue], axis=-1), 0, 255)


def between(places, count):
    """Returns float64[n count]: the weight of each sample at these positions; beyond the last sample, the last."""
    return np.maximum(0, 1 - abs(np.clip(places, 0, count - 1)[:, np.newaxis] - np.arange(count)))


@pytest.mark.parametrize("pixels", DEEP.values(), ids=DEEP)
def test_colors_of_ten_bits_are_interpolated_at_their_chroma_positions_also_without_scaling(stored, pixels):
    path, frame = stored("libx264", pixels)
    assert frame.format.name == pixels
    error = abs(read_frames(path, [0])[0] - by_definition(frame, pixels))
    assert error.max() <= 0.5 + 0.5  # rounded to whole levels, and half a level for arithmetic in fixed point


def test_colors_out_of_range_are_clipped_before_they_are_mixed(tmp_path):
    path, planes = tmp_path / "beyond.mkv", np.empty((3, HEIGHT, WIDTH), np.uint8)
    bright = np.arange(WIDTH) % 8 < 4
    planes[:] = np.where(bright, [[235], [90], [230]], [[60], [160], [100]])[:, np.newaxis]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv444p"
        container.mux([*stream.encode(av.VideoFrame.from_dlpack(list(planes), "yuv444p")), *stream.encode(None)])
    luma, blue, red = 255 / 219 * (planes[0] - 16.0), 255 / 224 * (planes[1] - 128.0), 255 / 224 * (planes[2] - 128.0)
    green = luma - (0.114 * 1.772 * blue + 0.299 * 1.402 * red) / 0.587
    colors = np.stack([luma + 1.402 * red, green, luma + 1.772 * blue], axis=-1)
    assert colors.max() > 255 + 100  # what mixing before clipping would take for brighter than white
    clipped = Image.fromarray(np.uint8(np.rint(np.clip(colors, 0, 255))))
    expected = np.asarray(clipped.resize((31, 40), Image.Resampling.BILINEAR), np.int64)
    assert abs(scaled(path, 40, 31) - expected).max() <= 2


@pytest.mark.parametrize("old", [(2, 269), (105, 3)])
def test_pictures_of_two_and_three_pixels_are_scaled_as_pillow_does(old):
    plane = np.random.default_rng(7).integers(0, 256, old, np.uint8)
    results = scale.scaled([plane] * 3, 333, 317, VideoReformatter(), rows=True, columns=True)
    assert np.array_equal(results[1], Image.fromarray(plane).resize((317, 333), Image.Resampling.BILINEAR))
