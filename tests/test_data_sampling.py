"""The frames of clips, and the crops of frames."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivit.video.crops import cover, crop_clips, crop_corners
from vivit.video.sampling import Sampling, even_clips, random_clip, segment, warn_if_short

pytestmark = pytest.mark.fast

samplings = st.builds(
    Sampling, frames=st.integers(1, 9), stride=st.integers(1, 4), short=st.sampled_from(("loop", "pad"))
)
stretches = st.tuples(st.integers(0, 50), st.integers(1, 60)).map(lambda pair: (pair[0], sum(pair)))


@given(samplings, stretches, st.integers(1, 5), st.integers(0, 99))
def test_clips_stay_in_their_stretch_and_advance_by_the_stride(sampling, stretch, views, seed):
    first, last = stretch
    clips = [*even_clips(sampling, first, last, views), random_clip(sampling, first, last, np.random.default_rng(seed))]
    for indices, valid in clips:
        assert len(indices) == sampling.frames
        assert (indices >= first).all()
        assert (indices < last).all()
        steps = np.diff(indices)
        if last - first >= sampling.span:
            assert (steps == sampling.stride).all()
            assert valid == sampling.frames
        elif sampling.short == "loop":
            assert ((indices - first) == (sampling.stride * np.arange(sampling.frames)) % (last - first)).all()
            assert valid == sampling.frames
        else:
            assert (steps[: valid - 1] == sampling.stride).all()
            assert (indices[valid:] == last - 1).all()
            assert (last - 1 - indices[valid - 1]) < sampling.stride


def test_views_reach_from_the_first_frame_to_the_last_and_one_is_the_middle():
    sampling = Sampling(frames=4, stride=3)  # spans 10
    assert [clip.indices[0] for clip in even_clips(sampling, 100, 130, 3)] == [100, 110, 120]
    assert even_clips(sampling, 100, 130)[0].indices.tolist() == [110, 113, 116, 119]


def test_every_start_that_fits_is_drawn_and_no_other():
    generator = np.random.default_rng(0)
    drawn = {int(random_clip(Sampling(frames=3, stride=2), 10, 18, generator).indices[0]) for _ in range(200)}
    assert drawn == {10, 11, 12, 13}


def test_seconds_choose_the_frames_that_are_shown_in_between():
    stamps = np.array([0, 0.1, 0.2, 0.7, 0.8])
    assert segment(stamps) == (0, 5)
    assert segment(stamps, 0.1, 0.7) == (1, 3)
    assert segment(stamps, 0.15, None) == (2, 5)
    late = 1.5e-6  # more than an annotation may be late
    assert segment(stamps + 0.9e-6, *stamps[[1, 3]]) == segment(stamps - 0.9e-6, *stamps[[1, 3]]) == (1, 3)
    assert segment(stamps - late, *stamps[[1, 3]]) == (2, 4)
    with pytest.raises(ValueError, match=r"no frame is shown from second 0.3 to 0.6: its 5 frames are shown from 0"):
        segment(stamps, 0.3, 0.6)


@pytest.mark.parametrize(("field", "value"), [("frames", 0), ("stride", 2.0), ("short", "stretch")])
def test_an_invalid_sampling_is_rejected(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value!r}: it must be"):
        Sampling(**{field: value})


@given(*[st.integers(1, 90)] * 4)
def test_a_picture_is_scaled_until_it_covers_and_its_centre_is_kept(height, width, tall, wide):
    placement = cover(height, width, tall=tall, wide=wide)
    assert placement.height >= tall
    assert placement.width >= wide
    assert placement.height == tall or placement.width == wide
    assert 0 <= placement.height - tall - 2 * placement.top <= 1
    assert 0 <= placement.width - wide - 2 * placement.left <= 1
    assert (placement.tall, placement.wide) == (tall, wide)


def test_the_shorter_side_gets_the_length():
    assert cover(48, 64, tall=9, wide=9, resize=24)[:2] == (24, 32)
    assert cover(64, 48, tall=9, wide=9, resize=96)[:2] == (128, 96)


@given(*[st.integers(1, 60)] * 4, st.integers(1, 60), st.integers(1, 4))
def test_cropping_to_the_needed_region_does_not_change_the_crops(height, width, tall, wide, resize, crops):
    whole, kept = (cover(height, width, tall=tall, wide=wide, resize=resize, crops=some) for some in (None, crops))
    assert whole[:2] == kept[:2] == (whole.tall, whole.wide)
    assert kept.tall == tall or kept.wide == wide
    pictures = np.arange(whole.tall * whole.wide * 3).reshape(1, whole.tall, whole.wide, 3)
    cut = pictures[:, kept.top : kept.top + kept.tall, kept.left : kept.left + kept.wide]
    expected, taken = (
        crop_clips(frames, np.zeros((1, 1), int), crops, height=tall, width=wide) for frames in (pictures, cut)
    )
    assert np.array_equal(expected, taken)


def test_windows_are_spread_along_the_longer_side():
    assert crop_corners(5, 11, 3, height=5, width=5) == [(0, 0), (0, 3), (0, 6)]
    assert crop_corners(11, 5, 3, height=5, width=5) == [(0, 0), (3, 0), (6, 0)]
    assert crop_corners(7, 12, 3, height=5, width=5) == [(1, 0), (1, 3), (1, 7)]
    assert crop_corners(5, 11, 1, height=5, width=5) == [(0, 3)]


def test_pictures_smaller_than_their_window_are_refused():
    with pytest.raises(ValueError, match="pictures are 11x5: they must be at least 6x6"):
        crop_corners(5, 11, 1, height=6, width=6)


def test_a_clip_is_by_default_the_papers_and_a_video_that_is_shorter_is_warned_of(caplog):
    assert Sampling() == Sampling(frames=32, stride=2, short="loop")
    for short, length, message in (
        ("loop", 62, "it starts again"), ("pad", 1, "its last frame stays"), ("pad", 63, None)
    ):  # fmt: skip
        caplog.clear()
        warn_if_short("a film", Sampling(short=short), length)
        frames = f"{length} frame{'s' * (length > 1)}"
        said = f"a film has {frames}: a clip of 32 at stride 2 needs 63, {message}"
        assert caplog.messages == ([] if message is None else [said])
