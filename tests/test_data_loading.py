"""Batches do not depend on the number of workers and hosts, resume from a checkpoint, and report missing videos."""

import json
import logging
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from videos import write_video

from vivit.data.clips import BrokenVideoError
from vivit.data.loading import Share, training_batches
from vivit.data.sources import Dataset, Example
from vivit.video.cache import Cache
from vivit.video.sampling import Sampling
from vivit.video.spec import ClipSpec
from vivit.video.views import load_views

pytestmark = pytest.mark.fast

SPEC = ClipSpec(sampling=Sampling(frames=3, stride=2), height=24, width=32)
FIELDS = ("video", "frames_valid", "labels", "index")


def noisy(clip, generator):
    """A transform whose output contains the random numbers that it got."""
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
    """The dataset with two unusable examples: one is not a video, one has no frame in its time range."""
    text = tmp_path_factory.mktemp("broken") / "text.mp4"
    text.write_text("no video")
    examples = list(dataset.examples)
    examples[2], examples[5] = replace(examples[2], path=str(text)), replace(examples[5], start=99.0)
    return replace(dataset, examples=tuple(examples))


def test_a_segment_that_is_shorter_than_a_clip_is_warned_of(dataset, caplog):
    path = dataset.examples[6].path
    for end, said in ((9.5 / 25, "has 4 frames: a clip of 3 at stride 2 needs 5, it starts again"), (11 / 25, None)):
        caplog.clear()
        load_views(SPEC, path, (1, 1), start=6 / 25, end=end)
        assert caplog.messages == ([] if said is None else [f"{path} {said}"])


def take(loader, count=None):
    """Returns the first batches (default: all) and closes the loader."""
    with loader:
        return list(islice(loader, count))


def same(batches, others):
    return len(batches) == len(others) and all(
        np.array_equal(getattr(one, field), getattr(other, field))
        for one, other in zip(batches, others, strict=True)
        for field in FIELDS
    )


def test_a_batch_has_clips_labels_and_the_index_of_their_examples(dataset):
    (batch, *_) = take(training_batches(dataset, SPEC, Share(batch=5), seed=3), 2)
    assert {field: (getattr(batch, field).dtype.name, getattr(batch, field).shape) for field in FIELDS} == {
        "video": ("uint8", (5, 3, 24, 32, 3)),
        "frames_valid": ("int32", (5,)),
        "labels": ("float32", (5, 5)),
        "index": ("int64", (5,)),
    }
    for row, index in enumerate(batch.index):
        assert batch.labels[row].nonzero()[0].tolist() == [index % 2, 2 + index % 3]
        frames = batch.video[row, :, 0, 0, 0] // 8
        length = 4 + 2 * index
        assert (np.diff(frames.astype(int)) % length == 2).all()  # short ones loop


def test_batches_are_the_same_whatever_the_number_of_threads(damaged):
    options = dict(transform=noisy, broken="skip")
    loaders = [training_batches(damaged, SPEC, Share(batch=4), seed=1, threads=n, **options) for n in (1, 2, 5)]
    one, two, five = (take(loader, 8) for loader in loaders)
    assert same(one, two)
    assert same(one, five)
    assert loaders[0].broken == loaders[1].broken == loaders[2].broken
    other = take(training_batches(damaged, SPEC, Share(batch=4), seed=2, **options), 8)
    assert not same(one, other)


def test_an_epoch_shows_every_example_once_in_another_order(dataset):
    batches = take(training_batches(dataset, SPEC, Share(batch=7)), 3)
    orders = [batch.index.tolist() for batch in batches]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    starts = {tuple(batch.video[list(batch.index).index(6), :, 0, 0, 0]) for batch in batches}
    assert len(starts) > 1  # and other clips of them


def test_hosts_share_the_batches_of_one(dataset):
    whole = take(training_batches(dataset, SPEC, Share(batch=6), seed=5), 4)
    parts = [take(training_batches(dataset, SPEC, Share(batch=2, host=host, hosts=3), seed=5), 4) for host in range(3)]
    for step, batch in enumerate(whole):
        for host in range(3):
            assert np.array_equal(batch.video[host::3], parts[host][step].video)
            assert np.array_equal(batch.index[host::3], parts[host][step].index)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_after_a_restore_batches_continue_from_the_saved_position(damaged, steps):
    first, second = (
        training_batches(damaged, SPEC, Share(batch=3), transform=noisy, seed=1, threads=threads, broken="skip")
        for threads in (2, 1)
    )
    with first, second:
        for _ in range(steps):
            next(first)
        state = json.loads(json.dumps(first.state()))
        after = [next(first) for _ in range(3)]
        second.restore(state)
        assert same(after, [next(second) for _ in range(3)])
        first.restore(state)
        assert same(after, [next(first) for _ in range(3)])
        assert first.state() == second.state()


def test_a_state_of_other_batches_is_refused(dataset):
    state = training_batches(dataset, SPEC, Share(batch=3)).state()
    with pytest.raises(ValueError, match="batch is 3 in the state: it must be 4"):
        training_batches(dataset, SPEC, Share(batch=4)).restore(state)


def test_a_broken_video_is_reported_once_counted_and_replaced(damaged, caplog):
    with caplog.at_level(logging.WARNING, "vivit.data"):
        loader = training_batches(damaged, SPEC, Share(batch=7), seed=4, broken="skip")
        batches = take(loader, 3)
    assert sorted(loader.broken) == sorted([damaged.examples[2].path, damaged.examples[5].path])
    assert "cannot be read as a video" in loader.broken[damaged.examples[2].path]
    assert "no frame is shown from second 99.0" in loader.broken[damaged.examples[5].path]
    assert len(caplog.records) == 2
    shown = np.concatenate([batch.index for batch in batches])
    assert not {2, 5, -1} & set(shown.tolist())


def test_a_broken_video_stops_everything_if_that_is_chosen(damaged):
    with pytest.raises(BrokenVideoError, match=r"text\.mp4 cannot be read as a video") as error:
        take(training_batches(replace(damaged, examples=damaged.examples[2:3]), SPEC, Share(batch=2)), 5)
    assert error.value.path == damaged.examples[2].path


def test_training_ends_with_an_error_if_no_video_can_be_read(damaged):
    with pytest.raises(ValueError, match="32 videos one after the other cannot be used"):
        take(training_batches(replace(damaged, examples=damaged.examples[2:3]), SPEC, Share(batch=1), broken="skip"), 1)


def test_a_transform_gets_the_whole_picture_and_must_return_a_clip(dataset):
    shapes = []

    def recorded(clip, generator):
        shapes.append(clip.shape)
        return clip

    spec = replace(SPEC, height=16, width=16, resize=20)
    (batch,) = take(training_batches(dataset, spec, Share(batch=2), transform=recorded), 1)
    assert batch.video.shape[2:4] == (16, 16)
    assert set(shapes) == {(3, 20, 33, 3)}
    for wrong in (lambda clip, generator: clip / 255, lambda clip, generator: clip[1:]):
        with pytest.raises(ValueError, match=r"the transform returns .*: it must be uint8\[3 height width 3\]"):
            take(training_batches(dataset, spec, Share(batch=2), transform=wrong), 1)


def test_cached_batches_are_the_same(dataset, tmp_path):
    cached = replace(SPEC, cache=Cache(tmp_path / "cache"))
    plain = take(training_batches(dataset, SPEC, Share(batch=7)), 3)
    for _ in range(2):
        assert same(plain, take(training_batches(dataset, cached, Share(batch=7)), 3))
    views = [load_views(SPEC, example.path, (2, 2)).pixels for example in dataset.examples]
    for _ in range(2):
        for example, expected in zip(dataset.examples, views, strict=True):
            assert np.array_equal(load_views(cached, example.path, (2, 2)).pixels, expected)
    assert len(list((tmp_path / "cache").iterdir())) == 14


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (
            lambda data: training_batches(replace(data, examples=()), SPEC, Share(batch=1)),
            "the dataset has no example",
        ),
        (lambda data: training_batches(data, SPEC, Share(batch=1), threads=10**6), "threads is 1000000: it must be"),
        (
            lambda data: training_batches(data, SPEC, Share(batch=1), threads=0),
            "threads is 0: it must be an integer from 1 to 1024",
        ),
        (
            lambda data: training_batches(data, SPEC, Share(batch=1), broken="hide"),
            "broken is 'hide': it must be one",
        ),
        (lambda data: Share(batch=0), "batch is 0"),
        (lambda data: Share(batch=1, host=2, hosts=2), "host 2 of 2"),
        (lambda data: ClipSpec(height=0), "height is 0: it must be a positive integer"),
        (lambda data: ClipSpec(threads=-1), "threads is -1: it must be a number, 0 for all"),
    ],
)
def test_invalid_arguments_are_rejected(dataset, call, reason):
    with pytest.raises(ValueError, match=reason):
        call(dataset)
