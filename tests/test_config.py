"""Valid and invalid Configs, the named variants, and the shapes, counts and costs derived from them."""

from dataclasses import FrozenInstanceError, replace
from typing import get_args

import numpy as np
import pytest
from strategies import SMALL, random_params, small

from vivit.audit.variants import compiler_multiply_adds
from vivit.reference import values
from vivit.reference.config import NAMES, Config, Model, named
from vivit.reference.costs import multiply_adds
from vivit.reference.nearest import did_you_mean
from vivit.reference.params import Dense, check, convert, layer, leaves, parameters, shapes

pytestmark = pytest.mark.fast

PAPER = {  # Arnab et al. 2021, table 2, parameters exact, multiply-adds in 10⁹
    "vivit-b/16x2": (88_954_000, 455.2),
    "vivit-b/16x2-fe": (115_062_928, 284.4),
    "vivit-b/16x2-fsa": (117_319_312, 372.3),
    "vivit-b/16x2-fdp": (88_952_464, 277.1),
    "vivit-b/16x2-fe-average": (86_696_080, 283.9),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_parameters_are_met_exactly_and_its_multiply_adds_within_one_percent(name):
    config = named(name)
    assert parameters(config) == PAPER[name][0]
    assert abs(multiply_adds(config) / 1e9 / PAPER[name][1] - 1) < 0.01


def test_the_most_similar_name_is_suggested_if_any_is_similar():
    known = ["prelogits", "Logits", "tokens"]
    assert did_you_mean("logit", known) == "did you mean 'Logits'? "
    assert did_you_mean("pixels", known) == did_you_mean(3, known) == ""


def test_of_a_video_at_most_the_sampled_frames_become_tokens():
    config = replace(SMALL, tubelet=(1, 3, 7), sampled_frames=4)
    assert [config.grid_of(frames, 15, 14) for frames in (1, 4, 6)] == [(1, 5, 2), (4, 5, 2), (4, 5, 2)]


@pytest.mark.parametrize(
    ("name", "operations"),
    [
        ("vivit-b/16x2", 910.42),
        ("vivit-b/16x2-fe", 568.75),
        ("vivit-b/16x2-fsa", 744.65),
        ("vivit-b/16x2-fdp", 554.26),
        ("vivit-b/16x2-fe-average", 567.78),
    ],
)
def test_the_compiler_counts_the_operations_of_the_published_graphs(name, operations):
    assert 2 * compiler_multiply_adds(named(name)) / 1e9 == pytest.approx(operations, rel=0.002)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"frames": 7}, "frames is 7: it must be a positive multiple of the tubelet's 2"),
        ({"height": 16}, "height is 16: it must be a positive multiple of the tubelet's 3"),
        ({"width": 15}, "width is 15: it must be a positive multiple of the tubelet's 7"),
        ({"heads": 4}, "heads is 4: it must divide channels, 30"),
        ({"temporal_heads": 4}, "temporal_heads is 4: it must divide channels, 30"),
        ({"channels": 0}, "channels has 0: it must be a positive integer"),
        ({"layers": 2.0}, "layers has 2.0: it must be a positive integer"),
        ({"layers": True}, "layers has True: it must be a positive integer"),
        ({"temporal_layers": -1}, "temporal_layers is -1: it must be an integer, 0 or more"),
        ({"tubelet": (2, 3)}, r"tubelet is \(2, 3\): it must be three sizes"),
        ({"tubelet": 2}, "tubelet is 2: it must be a tuple of positive integers"),
        ({"classes": (5, 0)}, "classes has 0: it must be a positive integer"),
        ({"classes": 5}, "classes is 5: it must be a tuple of positive integers"),
        ({"sampled_frames": 3}, "tubelet.0. is 2: it must be 1 when frames are sampled"),
        ({"sampled_frames": 9, "tubelet": (1, 3, 7)}, "sampled_frames is 9: it must be at most frames, 6"),
        ({"epsilon": 0.0}, "epsilon is 0.0: it must be a number between 0 and 1"),
        ({"model": "vit"}, "model is 'vit': it must be one of spatio_temporal, factorised_encoder"),
        ({"pooling": "avg"}, "pooling is 'avg': it must be one of token, first, mean, max, sum"),
        ({"positions": "rotary"}, "positions is 'rotary': it must be one of learned, sinusoidal_1d"),
        ({"order": "space"}, "order is 'space': it must be one of time_space, space_time"),
        ({"gelu": "fast"}, "gelu is 'fast': it must be one of tanh, erf"),
        ({"positions": "sinusoidal_1d", "channels": 15, "heads": 3}, "channels is 15: sinusoidal_1d positions need"),
        ({"positions": "sinusoidal_3d", "channels": 32}, "channels is 32: sinusoidal_3d positions need"),
        ({"model": "factorised_dot_product", "pooling": "mean", "heads": 3}, "heads is 3: .* needs an even number"),
        ({"model": "factorised_dot_product"}, "pooling is 'token': factorised_dot_product has no class token"),
        ({"model": "factorised_self_attention", "pooling": "first"}, "pooling is 'first': .* must be one of mean"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line_when_the_config_is_made(fields, message):
    if fields.get("channels") == 32:
        fields["temporal_heads"] = None
    with pytest.raises(ValueError, match=message) as error:
        replace(SMALL, **fields)
    assert "\n" not in str(error.value)


def test_a_config_is_frozen_hashable_and_turns_lists_into_tuples():
    config = replace(SMALL, tubelet=[2, 3, 7], classes=[97, 300])
    assert config.tubelet == (2, 3, 7)
    assert config.classes == (97, 300)
    assert hash(config) == hash(replace(SMALL, classes=(97, 300)))
    with pytest.raises(FrozenInstanceError):
        config.frames = 8


def test_named_variants_have_the_papers_sizes():
    sizes = {"b": (12, 768, 12, 3072), "l": (24, 1024, 16, 4096), "h": (32, 1280, 16, 5120)}
    for size, expected in sizes.items():
        config = named(f"vivit-{size}/16x2")
        assert (config.layers, config.channels, config.heads, config.hidden) == expected
    assert named("vivit-l/16x2-fe").temporal_layers == 4
    assert named("ViViT-B/16x2") == Config(model="spatio_temporal")
    assert named("vivit-b/32x4").tubelet == (4, 32, 32)
    assert all(isinstance(named(name), Config) for name in NAMES)


def test_the_smallest_named_variant_has_the_sizes_that_fixtures_were_made_with():
    sizes = dict(frames=8, height=32, width=32, tubelet=(2, 8, 8), layers=3, channels=48, heads=4, hidden=96)
    assert named("vivit-tiny/8x2-fe") == Config(model="factorised_encoder", **sizes, temporal_layers=2, classes=(5,))


@pytest.mark.parametrize("name", ["vivit-b", "vivit-x/16x2", "vivit-b/16x2-abc", "", "vit-b/16x2", 3])
def test_an_unknown_variant_is_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"no variant is named .*: .*it must be one of vivit-b/16x2, "):
        named(name)


def test_a_named_variant_whose_patches_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="height is 224: it must be a positive multiple of the tubelet's 15"):
        named("vivit-b/15x2")


def test_params_that_do_not_fit_are_refused_with_every_leaf_named():
    config = small("factorised_encoder")
    params = random_params(config)
    check(params, config)
    wrong = params._replace(
        temporal_encoder=None, head=params.head._replace(bias=np.zeros(3)), representation=params.head
    )
    with pytest.raises(ValueError, match="params do not fit the config: ") as error:
        check(wrong, config)
    for fault in (
        "head/bias has shape (3,), it must be (24,)",
        "temporal_encoder/blocks/mlp/out/kernel is missing",
        "representation/kernel is not of this config",
    ):
        assert fault in str(error.value)


@pytest.mark.parametrize("model", get_args(Model))
def test_every_leaf_has_a_name_for_every_axis_and_a_name_one_size(model):
    known = {"time", "height", "width", "colors", "c", "3c", "f", "l", "n", "r", "v"}
    for representation in (None, 23):
        sizes = {}
        for path, leaf in leaves(shapes(small(model, representation=representation))):
            for name, size in zip(leaf.axes, leaf.shape, strict=True):
                assert name in known, path
                owner = path.split("/")[0] if name in "nlf" else "model"  # each encoder has its tokens, layers, hidden
                assert sizes.setdefault((owner, name), size) == size, (path, name)


def test_converting_a_tree_gives_every_leaf_its_path_in_order_and_keeps_absent_parts():
    tree, seen = shapes(SMALL), []
    paths = convert(tree, lambda path, leaf: seen.append((path, leaf)) or path)
    assert seen == list(leaves(tree))
    assert [path for path, _ in seen] == [path for _, path in leaves(paths)]
    assert type(paths) is type(tree)
    assert paths.encoder.blocks.mlp.out.kernel == "encoder/blocks/mlp/out/kernel"
    assert convert(tree._replace(head=None), lambda path, leaf: leaf).head is None


def test_layer_takes_one_layer_of_a_stack_and_keeps_absent_parts():
    blocks = random_params(SMALL).encoder.blocks
    assert np.array_equal(layer(blocks, 1).mlp.out.kernel, blocks.mlp.out.kernel[1])
    assert layer(None, 1) is None
    assert layer((blocks.mlp.out.bias, None), 2)[1] is None


def test_multiply_adds_of_a_model_counted_by_hand():
    # 1 frame of 4x4 in 2x2 patches: 4 tokens of 2 channels, 1 layer, hidden 3, 5 classes, mean
    config = Config(
        model="spatio_temporal", frames=1, height=4, width=4, tubelet=(1, 2, 2), channels=2, heads=1, hidden=3,
        layers=1, classes=(5,), pooling="mean",
    )  # fmt: skip
    embedding, projections, attention, mlp, head = 4 * 12 * 2, 4 * (4 * 2 * 2), 2 * 4 * 4 * 2, 4 * 2 * 2 * 3, 2 * 5
    assert multiply_adds(config) == embedding + projections + attention + mlp + head


def test_multiply_adds_of_the_factorised_models_counted_by_hand():
    t, s, c, f, v = 2, 3, 8, 5, 7
    sizes = dict(frames=2, height=4, width=12, tubelet=(1, 4, 4), channels=c, heads=2, hidden=f, layers=3, classes=(v,))
    ends = t * s * 48 * c + c * v

    def layer(sequences, n, hidden):
        return sequences * (4 * n * c * c + 2 * n * n * c + 2 * n * c * hidden)

    encoder = Config(model="factorised_encoder", temporal_layers=2, temporal_hidden=11, **sizes)
    assert multiply_adds(encoder) == ends + 3 * layer(t, s + 1, f) + 2 * layer(1, t + 1, 11)
    assert multiply_adds(replace(encoder, temporal_layers=0)) == ends + 3 * layer(t, s + 1, f)
    over_both = 2 * t * s * (t + s) * c
    attention = Config(model="factorised_self_attention", pooling="mean", **sizes)
    assert multiply_adds(attention) == ends + 3 * (8 * t * s * c * c + over_both + 2 * t * s * c * f)
    halves = Config(model="factorised_dot_product", pooling="mean", **sizes)
    assert multiply_adds(halves) == ends + 3 * (4 * t * s * c * c + over_both // 2 + 2 * t * s * c * f)


def test_a_canonical_config_has_the_defaults_in_every_field_that_its_model_ignores():
    changed = dict(temporal_layers=2, temporal_heads=3, temporal_hidden=7, order="space_time")
    ignored = replace(named("vivit-b/16x2"), **changed)
    assert ignored.canonical == named("vivit-b/16x2")
    kept = replace(named("vivit-b/16x2-fe"), **changed)
    assert kept.canonical == replace(kept, order="time_space")
    same = replace(named("vivit-b/16x2-fe"), temporal_heads=12, temporal_hidden=3072)
    assert named("vivit-b/16x2-fe").canonical == same
    averaged = replace(kept, temporal_layers=0)
    assert averaged.canonical == replace(averaged, order="time_space", temporal_heads=None, temporal_hidden=None)
    assert replace(named("vivit-b/16x2-fsa"), order="space_time").canonical.order == "space_time"


def test_a_part_of_the_tree_shows_dtypes_and_shapes_in_place_of_numbers():
    shown = repr(Dense(np.zeros((2, 3), np.float32), None))
    assert shown == "Dense(kernel=float32[2 3], bias=None)"


def test_params_show_how_many_numbers_each_part_has():
    params = random_params(small("factorised_encoder", temporal_layers=0))
    shown = repr(params).splitlines()
    assert shown[0] == f"Params of {sum(leaf.size for _, leaf in leaves(params)):,} numbers"
    assert shown[1:] == [
        f"  {name}: {sum(leaf.size for _, leaf in leaves(getattr(params, name))):,}"
        for name in ("embedding", "encoder", "head")
    ]


def test_counts_are_integers_up_to_the_largest_and_messages_have_one_line():
    assert [values.is_count(value) for value in (0, 1, 2_147_483_647, 2_147_483_648, True, 1.0)] == [
        False, True, True, False, False, False
    ]  # fmt: skip
    assert values.is_count(0, least=0)
    assert values.one_line(" a\n  b \n") == "a b"
