"""Augmentation against its plain definition, and properties of all frames, draws and options."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import plain_augmentation as plain
from tests.strategies import seeds
from vivit.data import augmentation, color, randaugment
from vivit.data.augmentation import Augmentation, Draw, Erased, augment, check_flips, directions
from vivit.data.color import ColorChange
from vivit.data.randaugment import AMOUNTS, Operation

pytestmark = pytest.mark.fast

EVERYTHING = Augmentation(
    scale=(0.7, 1.6), random_crop=True, flip=0.5, color=0.5, grey=0.3, operations=3, magnitude=17, erase=0.5
)
TABLES = ("identity", "equalize", "solarize", "posterize")  # of integers: nothing is rounded
sizes = st.sampled_from((1, 2, 5, 11, 16))
signs = st.sampled_from((-1, 1))
strengths = st.floats(0, 0.99)  # by 30° a source comes to lie on the border itself, where rounding decides


def random_clip(seed, frames=2, height=7, width=5):
    """Noise between two random limits for each colour, so that extremes and histograms differ."""
    generator = np.random.default_rng(seed)
    low, high = np.sort(generator.integers(256, size=(2, 3)), axis=0)
    return generator.integers(low, high + 1, size=(frames, height, width, 3)).astype(np.uint8)


def farthest(actual, expected):
    return np.abs(actual.astype(float) - expected).max()


@given(seeds, sizes, sizes, sizes, sizes)
def test_resizing_is_the_triangle_filter(seed, height, width, tall, wide):
    clip = random_clip(seed, 2, height, width)
    # half a level for each of the two axes, which are rounded one after the other
    assert farthest(augmentation.resize(clip, tall, wide), plain.resize(clip, tall, wide)) <= 1.01


@given(seeds, sizes, sizes)
def test_colours_change_as_in_the_hexcone(seed, height, width):
    clip = random_clip(seed, 3, height, width)
    change = color.draw_color(np.random.default_rng(seed))
    assert farthest(color.change_color(clip, change), plain.change_color(clip, *change)) <= 0.51


@pytest.mark.parametrize("hue", [-1.0, -0.5, 0.0, 1 / 3, 0.5, 1.0])
@pytest.mark.parametrize("saturation", [0.0, 1.0, 100.0])
def test_colours_change_as_in_the_hexcone_at_the_corners_of_the_cube_and_the_greys(hue, saturation):
    clip = np.array(list(itertools.product((0, 128, 255), repeat=3)), np.uint8).reshape(1, 3, 9, 3)
    change = ColorChange(0.0, saturation, 1.0, hue)
    assert farthest(color.change_color(clip, change), plain.change_color(clip, *change)) <= 0.51


@given(seeds)
def test_grey_is_the_luma(seed):
    clip = random_clip(seed)
    grey = color.to_grey(clip)
    for place in np.ndindex(clip.shape[:3]):
        assert abs(grey[place] - plain.luma(clip[place])).max() <= 0.51
        assert len(set(grey[place].tolist())) == 1


@pytest.mark.parametrize("name", list(AMOUNTS))
@given(seed=seeds, height=sizes, width=sizes, strength=strengths, sign=signs)
def test_an_operation_of_randaugment_is_its_definition(name, seed, height, width, strength, sign):
    clip, amount = random_clip(seed, 2, height, width), AMOUNTS[name](strength, sign)
    actual, expected = randaugment.distort(clip, Operation(name, amount)), plain.OPERATIONS[name](clip, amount)
    assert actual.dtype == np.uint8
    # Pillow leaves fractions away where the definition rounds, or has them in float64
    assert farthest(actual, expected) <= (0 if name in TABLES else 1 + 1e-9)


@given(seeds)
def test_equalize_spreads_a_clip_of_many_pixels(seed):
    clip = np.random.default_rng(seed).integers(90, 110, size=(2, 16, 16, 3)).astype(np.uint8)
    actual = randaugment.distort(clip, Operation("equalize", 0))
    np.testing.assert_array_equal(actual, plain.equalize(clip, 0))
    assert actual.min() < 20
    assert actual.max() > 235


@pytest.mark.parametrize("name", sorted(set(AMOUNTS) - {"auto_contrast", "equalize"}))
@given(seed=seeds, sign=signs)
def test_magnitude_zero_changes_nothing(name, seed, sign):
    clip = random_clip(seed)
    np.testing.assert_array_equal(randaugment.distort(clip, Operation(name, AMOUNTS[name](0, sign))), clip)


@given(seeds)
def test_a_draw_is_applied_as_resize_crop_flip_grey_erase(seed):
    clip = random_clip(seed, 2, 11, 13)
    drawn = Draw((17, 23), (4, 2), True, (), None, True, Erased(1, 2, 3, 4, (9, 8, 7)))
    actual = augmentation.apply(clip, drawn, height=7, width=10)
    expected = augmentation.resize(clip, 17, 23)
    for frame, y, x in np.ndindex(2, 7, 10):
        pixel = [plain.luma(expected[frame, 4 + y, 2 + 9 - x])] * 3
        wanted = [9, 8, 7] if 1 <= y < 4 and 2 <= x < 6 else pixel
        np.testing.assert_allclose(actual[frame, y, x], wanted, rtol=0, atol=0.51)


@given(seeds)
def test_operations_color_grey_and_erasing_are_applied_in_this_order(seed):
    clip = random_clip(seed, 2, 6, 5)
    operations = (Operation("posterize", 5), Operation("solarize", 100.0))
    change, erased = ColorChange(0.1, 0.7, 1.3, 0.1), Erased(0, 1, 2, 2, (1, 2, 3))
    actual = augmentation.apply(clip, Draw((6, 5), (0, 0), False, operations, change, True, erased), height=6, width=5)
    for operation in operations:
        clip = randaugment.distort(clip, operation)
    expected = augmentation.erase(color.to_grey(color.change_color(clip, change)), erased)
    np.testing.assert_array_equal(actual, expected)


@given(seeds, sizes, sizes)
def test_frames_may_be_augmented_in_any_order(seed, height, width):
    clip = random_clip(seed, 5, 13, 11)
    order = np.random.default_rng(seed).permutation(5)
    size = dict(height=height, width=width)
    one = augment(clip, np.random.default_rng(seed), EVERYTHING, **size)
    other = augment(clip[order], np.random.default_rng(seed), EVERYTHING, **size)
    assert one.shape == (5, height, width, 3)
    assert one.flags.c_contiguous
    np.testing.assert_array_equal(one[order], other)


@given(seeds)
def test_a_generator_in_the_same_state_augments_in_the_same_way_and_the_clip_stays(seed):
    clip = random_clip(seed, 3, 12, 9)
    before = clip.copy()
    one, other = (augment(clip, np.random.default_rng(seed), EVERYTHING, height=8, width=8) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(clip, before)


def test_different_generators_augment_differently():
    clip = random_clip(0, 2, 12, 12)
    results = {augment(clip, np.random.default_rng(s), EVERYTHING, height=8, width=8).tobytes() for s in range(20)}
    assert len(results) == 20


@given(seeds, sizes, sizes)
def test_the_default_is_a_centre_crop(seed, above, left):
    clip = random_clip(seed, 2, 3 + 2 * above, 4 + 2 * left)
    actual = augment(clip, np.random.default_rng(seed), Augmentation(), height=3, width=4)
    np.testing.assert_array_equal(actual, clip[:, above : above + 3, left : left + 4])


def draws(options, count=2000, size=(40, 60), **wanted):
    generator = np.random.default_rng(0)
    return [augmentation.draw(generator, options, size, **(wanted or dict(height=20, width=20))) for _ in range(count)]


def test_augmentations_are_as_frequent_as_the_options_say():
    drawn = draws(Augmentation(flip=0.5, color=0.8, grey=0.1, erase=0.25))
    for field, probability in (("flip", 0.5), ("color", 0.8), ("grey", 0.1), ("erased", 0.25)):
        happened = np.mean([bool(getattr(each, field)) for each in drawn])
        assert abs(happened - probability) < 4 * np.sqrt(probability * (1 - probability) / len(drawn))


def test_height_and_width_are_scaled_independently_over_the_whole_range():
    factors = np.array([each.resized for each in draws(Augmentation(scale=(0.9, 1.33)))]) / (40, 60)
    assert abs(np.corrcoef(factors.T)[0, 1]) < 0.1
    np.testing.assert_allclose(factors.min(axis=0), 0.9, atol=0.01)
    np.testing.assert_allclose(factors.max(axis=0), 1.33, atol=0.01)


def test_crops_reach_every_corner_and_never_leave_the_frame():
    corners = {each.corner for each in draws(Augmentation(random_crop=True), size=(23, 22))}
    assert corners == {(top, left) for top in range(4) for left in range(3)}


def test_a_frame_that_is_too_small_is_resized_to_the_crop():
    assert {each.resized for each in draws(Augmentation(scale=(0.5, 0.5)), 5, (30, 60))} == {(20, 30)}


def test_every_operation_is_drawn_equally_often_and_in_both_directions():
    operations = [each for drawn in draws(Augmentation(operations=2, magnitude=30)) for each in drawn.operations]
    counts = {name: sum(each.name == name for each in operations) for name in AMOUNTS}
    expected = len(operations) / len(AMOUNTS)
    assert all(abs(count - expected) < 5 * np.sqrt(expected) for count in counts.values())
    assert {each.amount for each in operations if each.name == "rotate"} == {-30.0, 30.0}
    assert {each.amount for each in operations if each.name == "posterize"} == {4}


def test_colour_changes_stay_in_the_published_ranges():
    changes = np.array([each.color for each in draws(Augmentation(color=1))])
    np.testing.assert_allclose(changes.min(axis=0), (-32 / 255, 0.6, 0.6, -0.2), atol=0.005)
    np.testing.assert_allclose(changes.max(axis=0), (32 / 255, 1.4, 1.4, 0.2), atol=0.005)


@given(seeds, sizes, sizes)
def test_an_erased_rectangle_is_inside_the_frame(seed, height, width):
    generator = np.random.default_rng(seed)
    erased = augmentation.draw(generator, Augmentation(erase=1), (9, 9), height=height, width=width).erased
    assert erased is not None
    assert 0 <= erased.top < erased.top + erased.height <= height
    assert 0 <= erased.left < erased.left + erased.width <= width


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("scale", (1.0,), r"scale is \(1.0,\): it must be two numbers \(least, most\)"),
        ("scale", (1.3, 0.9), r"scale is \(1.3, 0.9\): it must be two positive numbers, the smaller first"),
        ("scale", (0.9, float("nan")), r"it must be two numbers"),
        ("flip", 1.5, r"flip is 1.5: it must be a probability from 0 to 1"),
        ("grey", "yes", r"grey is 'yes': it must be a probability"),
        ("random_crop", 1, r"random_crop is 1: it must be True or False"),
        ("operations", 2.0, r"operations is 2.0: it must be an integer, 0 or more"),
        ("magnitude", 31, r"magnitude is 31: it must be a number from 0 to 30"),
    ],
)
def test_invalid_options_are_rejected(field, value, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**{field: value})


@pytest.mark.parametrize(
    ("clip", "size", "message"),
    [
        ([1], (2, 2), r"clip is a list: it must be uint8\[frames height width 3\]"),
        (np.zeros((2, 3, 3, 3)), (2, 2), r"clip is float64\[2, 3, 3, 3\]: it must be uint8"),
        (np.zeros((3, 3, 3), np.uint8), (2, 2), r"clip is uint8\[3, 3, 3\]: it must be"),
        (np.zeros((0, 3, 3, 3), np.uint8), (2, 2), r"it must have at least one frame and one pixel"),
        (np.zeros((2, 3, 3, 3), np.uint8), (2, 0), r"width is 0: it must be a positive integer"),
    ],
)
def test_invalid_clips_and_sizes_are_rejected(clip, size, message):
    with pytest.raises(ValueError, match=message):
        augment(clip, np.random.default_rng(0), Augmentation(), height=size[0], width=size[1])


def test_the_options_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        EVERYTHING.flip = 0.0  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    "label",
    [
        "Pushing something from left to right",
        "turn_left",
        "PanRight",
        "ROLL-CLOCKWISE",
        "anti-clockwise",
        "Turning the camera leftwards",
        "counterclockwise 3",
        "lefthand",
        "roll ccw",
    ],
)
def test_labels_that_look_like_directions(label):
    assert directions([label]) == [label]


@pytest.mark.parametrize(
    "label", ["bright light", "copyright", "pouring leftovers", "Moving up", "cleft", "zoom in", "digit-3", ""]
)
def test_labels_that_do_not_look_like_directions(label):
    assert directions([label]) == []


def test_flips_give_a_warning_if_labels_look_like_directions():
    labels = ["walking", "turning left", "turning right"]
    assert check_flips(Augmentation(flip=0.5), labels) == (
        "flip is 0.5, but 2 of 3 labels look like directions, such as 'turning left': "
        "a flipped clip would keep the label of the other direction, so flip should be 0"
    )
    assert check_flips(Augmentation(), labels) is None
    assert check_flips(Augmentation(flip=0.5), ["walking"]) is None
