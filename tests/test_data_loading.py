"""Batches are the same whatever the workers and hosts, go on where a checkpoint was, and miss no video silently."""

import json
import logging
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from videos import write_video

from vivit.data.cache import Cache
from vivit.data.clips import BrokenVideoError, Pixels
from vivit.data.loading import Share, evaluation_batches, training_batches
from vivit.data.sampling import Sampling
from vivit.data.sources import Dataset, Example

pytestmark = pytest.mark.fast

PIXELS = Pixels(sampling=Sampling(frames=3, stride=2), height=24, width=32)
FIELDS = ("video", "frames_valid", "labels", "index", "view")


def noisy(clip, generator):
    """A transform that shows which random numbers it got."""
    return clip ^ generator.integers(0, 256, (len(clip), 1, 1, 3), np.uint8)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Seven videos of 4 to 16 frames; frame i of a video is grey 8·i on its left."""
    folder = tmp_path_factory.mktemp("videos")
    examples = []
    for number in range(7):
        path = folder / f"{number}.mkv"
        write_video(path, 4 + 2 * number, height=24, width=40)
        examples.append(Example(str(path), ((number % 2,), (number % 3,))))
    return Dataset(tuple(examples), ("verb", "noun"), (("a", "b"), ("x", "y", "z")))


@pytest.fixture(scope="module")
def damaged(dataset, tmp_path_factory):
    """The dataset with two examples that cannot be used: one no video, one without a frame in its seconds."""
    text = tmp_path_factory.mktemp("broken") / "text.mp4"
    text.write_text("no video")
    examples = list(dataset.examples)
    examples[2], examples[5] = replace(examples[2], path=str(text)), replace(examples[5], start=99.0)
    return replace(dataset, examples=tuple(examples))


def take(loader, count=None):
    """The first batches (all of them), and the loader closed."""
    with loader:
        return list(islice(loader, count))


def same(batches, others):
    return len(batches) == len(others) and all(
        np.array_equal(getattr(one, field), getattr(other, field))
        for one, other in zip(batches, others, strict=True)
        for field in FIELDS
    )


def test_a_batch_holds_clips_labels_and_what_they_are_of(dataset):
    (batch, *_) = take(training_batches(dataset, PIXELS, Share(batch=5), seed=3), 2)
    assert {field: (getattr(batch, field).dtype.name, getattr(batch, field).shape) for field in FIELDS} == {
        "video": ("uint8", (5, 3, 24, 32, 3)),
        "frames_valid": ("int32", (5,)),
        "labels": ("float32", (5, 5)),
        "index": ("int64", (5,)),
        "view": ("int32", (5,)),
    }
    for row, index in enumerate(batch.index):
        assert batch.labels[row].nonzero()[0].tolist() == [index % 2, 2 + index % 3]
        frames = batch.video[row, :, 0, 0, 0] // 8
        length = 4 + 2 * index
        assert (np.diff(frames.astype(int)) % length == 2).all()  # short ones loop


def test_batches_are_the_same_whatever_the_number_of_threads(damaged):
    pixels = replace(PIXELS, transform=noisy)
    loaders = [training_batches(damaged, pixels, Share(batch=4), seed=1, threads=n, broken="skip") for n in (1, 2, 5)]
    one, two, five = (take(loader, 8) for loader in loaders)
    assert same(one, two)
    assert same(one, five)
    assert loaders[0].broken == loaders[1].broken == loaders[2].broken
    other = take(training_batches(damaged, pixels, Share(batch=4), seed=2, broken="skip"), 8)
    assert not same(one, other)


def test_an_epoch_shows_every_example_once_in_another_order(dataset):
    batches = take(training_batches(dataset, PIXELS, Share(batch=7)), 3)
    orders = [batch.index.tolist() for batch in batches]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    starts = {tuple(batch.video[list(batch.index).index(6), :, 0, 0, 0]) for batch in batches}
    assert len(starts) > 1  # and other clips of them


def test_hosts_share_the_batches_of_one(dataset):
    whole = take(training_batches(dataset, PIXELS, Share(batch=6), seed=5), 4)
    parts = [
        take(training_batches(dataset, PIXELS, Share(batch=2, host=host, hosts=3), seed=5), 4) for host in range(3)
    ]
    for step, batch in enumerate(whole):
        for host in range(3):
            assert np.array_equal(batch.video[host::3], parts[host][step].video)
            assert np.array_equal(batch.index[host::3], parts[host][step].index)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_after_a_restore_comes_what_came_after_the_state(damaged, steps):
    def loaders(threads):
        pixels = replace(PIXELS, transform=noisy)
        yield training_batches(damaged, pixels, Share(batch=3), seed=1, threads=threads, broken="skip")
        yield evaluation_batches(damaged, PIXELS, Share(batch=3), views=2, crops=2, threads=threads, broken="skip")

    for first, second in zip(loaders(2), loaders(1), strict=True):
        for _ in range(steps):
            next(first)
        state = json.loads(json.dumps(first.state()))
        after = [next(first) for _ in range(3)]
        second.restore(state)
        assert same(after, [next(second) for _ in range(3)])
        first.restore(state)
        assert same(after, [next(first) for _ in range(3)])
        assert first.state() == second.state()
        first.close()
        second.close()


def test_a_state_of_other_batches_is_refused(dataset):
    state = training_batches(dataset, PIXELS, Share(batch=3)).state()
    with pytest.raises(ValueError, match="batch is 3 in the state: it must be 4"):
        training_batches(dataset, PIXELS, Share(batch=4)).restore(state)


def test_evaluation_shows_every_view_of_every_example_once(dataset):
    loader = evaluation_batches(dataset, PIXELS, Share(batch=4), views=2, crops=3)
    batches = take(loader)
    assert len(batches) == loader.steps == 11  # 42 clips
    index, view = (np.concatenate([getattr(batch, field) for batch in batches]) for field in ("index", "view"))
    assert index.tolist() == [*np.repeat(np.arange(7), 6), -1, -1]
    assert view[:42].tolist() == list(range(6)) * 7
    video = np.concatenate([batch.video for batch in batches])
    clips = video[:42].reshape(7, 2, 3, 3, 24, 32, 3)
    left = clips[..., 0, 0, 0] // 8  # example, view, crop, frame
    assert left[6, 0, 0].tolist() == [0, 2, 4]
    assert left[6, 1, 0].tolist() == [11, 13, 15]
    bright = (clips[6, 0, :, 0, 0, :, 0] == 255).sum(1)  # the right half is bright in frame 0
    assert bright.tolist() == [12, 16, 20]
    assert not video[42:].any()


def test_hosts_evaluate_equally_many_batches_and_nothing_twice(dataset):
    parts = [take(evaluation_batches(dataset, PIXELS, Share(batch=2, host=host, hosts=3))) for host in range(3)]
    assert [len(part) for part in parts] == [2, 2, 2]
    seen = [index for part in parts for batch in part for index in batch.index.tolist() if index >= 0]
    assert sorted(seen) == list(range(7))


def test_padding_is_counted_where_videos_are_short(dataset):
    pixels = replace(PIXELS, sampling=Sampling(frames=5, stride=2, short="pad"))
    (batch,) = take(evaluation_batches(dataset, pixels, Share(batch=7)))
    assert batch.frames_valid.tolist() == [2, 3, 4, 5, 5, 5, 5]
    assert (batch.video[0, :, 0, 0, 0] // 8).tolist() == [0, 2, 3, 3, 3]


def test_a_broken_video_is_reported_once_counted_and_replaced(damaged, caplog):
    with caplog.at_level(logging.WARNING, "vivit.data"):
        loader = training_batches(damaged, PIXELS, Share(batch=7), seed=4, broken="skip")
        batches = take(loader, 3)
    assert sorted(loader.broken) == sorted([damaged.examples[2].path, damaged.examples[5].path])
    assert "cannot be read as a video" in loader.broken[damaged.examples[2].path]
    assert "no frame is shown from second 99.0" in loader.broken[damaged.examples[5].path]
    assert len(caplog.records) == 2
    shown = np.concatenate([batch.index for batch in batches])
    assert not {2, 5, -1} & set(shown.tolist())


def test_evaluation_leaves_the_place_of_a_broken_video_empty(damaged):
    loader = evaluation_batches(damaged, PIXELS, Share(batch=7), broken="skip")
    (batch,) = take(loader)
    assert batch.index.tolist() == [0, 1, -1, 3, 4, -1, 6]
    assert not batch.labels[[2, 5]].any()
    assert len(loader.broken) == 2


@pytest.mark.parametrize("make", [training_batches, evaluation_batches])
def test_a_broken_video_stops_everything_if_that_is_chosen(damaged, make):
    with pytest.raises(BrokenVideoError, match=r"text\.mp4 cannot be read as a video") as error:
        take(make(replace(damaged, examples=damaged.examples[2:3]), PIXELS, Share(batch=2)), 5)
    assert error.value.path == damaged.examples[2].path


def test_training_gives_up_where_nothing_can_be_used(damaged):
    with pytest.raises(ValueError, match="32 videos one after the other cannot be used"):
        take(
            training_batches(replace(damaged, examples=damaged.examples[2:3]), PIXELS, Share(batch=1), broken="skip"), 1
        )


def test_a_transform_gets_the_whole_picture_and_must_return_a_clip(dataset):
    shapes = []

    def recorded(clip, generator):
        shapes.append(clip.shape)
        return clip

    pixels = replace(PIXELS, height=16, width=16, shorter_side=20, transform=recorded)
    (batch,) = take(training_batches(dataset, pixels, Share(batch=2)), 1)
    assert batch.video.shape[2:4] == (16, 16)
    assert set(shapes) == {(3, 20, 33, 3)}
    for wrong in (lambda clip, generator: clip / 255, lambda clip, generator: clip[1:]):
        with pytest.raises(ValueError, match=r"the transform returns .*: it must be uint8\[3 height width 3\]"):
            take(training_batches(dataset, replace(pixels, transform=wrong), Share(batch=2)), 1)


def test_cached_batches_are_the_same(dataset, tmp_path):
    cached = replace(PIXELS, cache=Cache(tmp_path / "cache"))
    for make in (training_batches, evaluation_batches):
        plain = take(make(dataset, PIXELS, Share(batch=7)), 3)
        assert same(plain, take(make(dataset, cached, Share(batch=7)), 3))
        assert same(plain, take(make(dataset, cached, Share(batch=7)), 3))
    assert len(list((tmp_path / "cache").iterdir())) == 14


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (
            lambda data: training_batches(replace(data, examples=()), PIXELS, Share(batch=1)),
            "the dataset has no example",
        ),
        (lambda data: training_batches(data, PIXELS, Share(batch=1), threads=10**6), "threads is 1000000: it must be"),
        (
            lambda data: training_batches(data, PIXELS, Share(batch=1), threads=0),
            "threads is 0: it must be an integer from 1 to 1024",
        ),
        (
            lambda data: training_batches(data, PIXELS, Share(batch=1), broken="hide"),
            "broken is 'hide': it must be one",
        ),
        (lambda data: evaluation_batches(data, PIXELS, Share(batch=1), views=0), "views is 0: it must be at least 1"),
        (lambda data: Share(batch=0), "batch is 0"),
        (lambda data: Share(batch=1, host=2, hosts=2), "host 2 of 2"),
        (lambda data: Pixels(height=0), "height is 0: it must be a positive integer"),
        (lambda data: Pixels(shorter_side=100), "shorter_side is 100: it must be at least 224"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(dataset, call, reason):
    with pytest.raises(ValueError, match=reason):
        call(dataset)
