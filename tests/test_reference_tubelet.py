"""The reference's embeddings against explicit indices and loops, and the image model that they extend."""

import fractions

import numpy as np
import pytest
from accuracy import assert_same
from hypothesis import given
from hypothesis import strategies as st
from strategies import SMALL, normal

from vivit.reference.params import Dense
from vivit.reference.tubelet import (
    central_frame,
    check_video,
    embed,
    frame_indices,
    inflate,
    patches,
    pixels,
    select_frames,
)

pytestmark = pytest.mark.fast


def test_frame_sampling_of_32_to_8_is_the_published_one():
    assert frame_indices(32, 8).tolist() == [4, 7, 11, 14, 18, 21, 25, 28]


def test_frame_sampling_of_8_to_2_gives_two_frames():
    assert frame_indices(8, 2).tolist() == [3, 5]


def test_frame_sampling_of_as_many_or_more_gives_all():
    assert frame_indices(5, 5).tolist() == frame_indices(5, 9).tolist() == [0, 1, 2, 3, 4]


@given(frames=st.integers(1, 300), sampled=st.integers(1, 300))
def test_frame_sampling_rounds_exact_fractions_half_to_even(frames, sampled):
    expected = [min(round(fractions.Fraction(k * frames, sampled + 1)), frames - 1) for k in range(1, sampled + 1)]
    assert frame_indices(frames, sampled).tolist() == (list(range(frames)) if sampled >= frames else expected)


def test_pixels_of_uint8_run_from_minus_one_to_one_and_floats_stay():
    assert_same(pixels(np.array([0, 255], np.uint8)), [-1, 1])
    assert_same(pixels(np.array([-2.1, 7.0])), [-2.1, 7.0])


def test_patches_are_the_pixels_of_their_tubelet_in_order():
    tubelet = (2, 3, 7)
    video = np.float64(normal(0, 2, 6, 15, 14, 3))
    cut = patches(video, tubelet)
    assert cut.shape == (2, 3, 5 * 2, 2 * 3 * 7 * 3)
    for t in range(3):
        for row in range(5):
            for column in range(2):
                block = video[1, 2 * t : 2 * t + 2, 3 * row : 3 * row + 3, 7 * column : 7 * column + 7]
                assert np.array_equal(cut[1, t, row * 2 + column], block.ravel())


def test_tubelet_embedding_is_a_convolution_whose_stride_is_its_size():
    video = np.float64(normal(1, 2, 4, 6, 10, 3))
    params = Dense(np.float64(normal(2, 2, 3, 5, 3, 7)), np.float64(normal(3, 7)))
    tokens = embed(video, params)
    for t in range(2):
        for row in range(2):
            for column in range(2):
                total = np.array(params.bias)
                for i, j, k, color in np.ndindex(2, 3, 5, 3):
                    pixel = video[0, 2 * t + i, 3 * row + j, 5 * column + k, color]
                    total = total + pixel * params.kernel[i, j, k, color]
                assert_same(tokens[0, t, row * 2 + column], total)


def test_a_kernel_of_one_frame_embeds_each_frame_as_an_image():
    video = np.float64(normal(4, 1, 3, 6, 10, 3))
    params = Dense(np.float64(normal(5, 1, 3, 5, 3, 7)), np.float64(normal(6, 7)))
    for frame in range(3):
        assert_same(embed(video, params)[:, frame], embed(video[:, frame : frame + 1], params)[:, 0])


@pytest.mark.parametrize(("time", "center"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_central_frame_puts_the_image_kernel_on_the_time_axis(time, center):
    image = np.float64(normal(7, 3, 5, 3, 7))
    kernel = central_frame(image, time)
    assert kernel.shape == (time, 3, 5, 3, 7)
    assert np.array_equal(kernel[center], image)
    assert not np.delete(kernel, center, axis=0).any()


@pytest.mark.parametrize("time", [1, 2, 3])
def test_an_inflated_kernel_gives_a_still_video_the_images_tokens(time):
    image, bias = np.float64(normal(8, 3, 5, 3, 7)), np.float64(normal(9, 7))
    picture = np.float64(normal(10, 1, 1, 6, 10, 3))
    still = np.repeat(picture, 2 * time, axis=1)
    expected = embed(picture, Dense(image[np.newaxis], bias))
    for kernel in (inflate(image, time), central_frame(image, time)):
        tokens = embed(still, Dense(kernel, bias))
        assert_same(tokens, np.repeat(expected, 2, axis=1))


def test_take_frames_repeats_the_last_real_frame_and_never_reads_padding():
    video = np.arange(6.0)[np.newaxis, :, np.newaxis, np.newaxis, np.newaxis] + np.array([0, 10]).reshape(2, 1, 1, 1, 1)
    taken, counts = select_frames(video, None, np.array([2, 6]))
    assert taken[:, :, 0, 0, 0].tolist() == [[0, 1, 1, 1, 1, 1], [10, 11, 12, 13, 14, 15]]
    assert counts.tolist() == [2, 6]
    taken, counts = select_frames(video, 3, np.array([2, 6]))
    assert taken[:, :, 0, 0, 0].tolist() == [[0, 1, 1], [12, 13, 14]]  # 6/4, 12/4, 18/4 → 2, 3, 4
    assert counts.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((2, 6, 15, 14), "float32", r"video has shape \(2, 6, 15, 14\): it must be \[b frames height width 3\]"),
        ((2, 6, 15, 14, 4), "uint8", r"video has shape \(2, 6, 15, 14, 4\)"),
        ((0, 6, 15, 14, 3), "uint8", "video has 0 examples: it must have at least 1"),
        ((2, 6, 15, 14, 3), "int32", "video has dtype int32: it must be uint8"),
        ((2, 4, 15, 14, 3), "uint8", r"has \(6, 15, 14\); pass resize=True .* pad the frames and pass frames_valid"),
        ((2, 6, 15, 21, 3), "uint8", r"the config has \(6, 15, 14\); pass resize=True to resize the positions$"),
    ],
)
def test_a_video_that_does_not_fit_is_refused(shape, dtype, message):
    with pytest.raises(ValueError, match=message):
        check_video(shape, dtype, SMALL)


def test_a_resized_video_must_still_divide_into_tubelets():
    assert check_video((1, 8, 9, 28, 3), "uint8", SMALL, resize=True) == (4, 3, 4)
    with pytest.raises(ValueError, match="width is 20: it must be a positive multiple of the tubelet's 7"):
        check_video((1, 6, 15, 20, 3), "uint8", SMALL, resize=True)


def test_patches_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"video is 5x6x10: it must divide by the tubelet \(2, 3, 5\)"):
        patches(np.zeros((1, 5, 6, 10, 3)), (2, 3, 5))
