"""The list of properties, and what each is tried on. attention.py and models.py hold the checks."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, get_args

from hypothesis import strategies as st

from vivit.conformance import attention, models
from vivit.conformance.cases import BASE, GENERAL, ONE_TOKEN, Shape, any_shape, cases
from vivit.conformance.implementation import CORES, DTYPES, Implementation
from vivit.conformance.models import WITHOUT_TOKEN, config, model_cases
from vivit.reference.config import Config, Model, Pooling, Positions

LARGE = (30.0, 100.0)  # factors of query and key: scores of some 10³ and 10⁴


class Property(NamedTuple):
    """One property of one function in one dtype: a row of the report.

    check(implementation, function, case) raises Departure or Unsupported. draw(any_sizes) gives its cases: of a few
    sizes, so that little is compiled, or of any. most: cases that are enough, as there are not more, or they are slow.
    """

    function: str
    name: str
    dtype: str
    check: Callable[[Implementation, str, Any], None]
    draw: Callable[[bool], st.SearchStrategy[Any]]
    most: int = 10**9


def properties(of_invariants: str = "float32") -> list[Property]:
    """Returns all properties in the order of the report. of_invariants: the dtype of the cores' invariants."""
    found: list[Property] = []
    for core in CORES:
        for function in (core, f"{core}_vjp"):
            for dtype in DTYPES:
                found += of_core(function, dtype)
            found += invariants(function, of_invariants)
    for dtype in DTYPES:
        found += _of_tubelets(dtype)
    for dtype in DTYPES:
        found += _of_models(dtype)
    return found


def of_core(function: str, dtype: str, shapes: tuple[Shape, ...] = GENERAL) -> list[Property]:
    """Returns the properties of a core, or its vector-Jacobian product, that compare it with the oracle."""
    make = partial(_of_core, function, dtype)
    core = function.removesuffix("_vjp")
    base = BASE[core]
    one_token = make("sequences of one token", attention.accurate, ONE_TOKEN[core], sizes_vary=False, most=3)
    return [
        make("equality with the oracle", attention.accurate, shapes),
        *([] if function != core else [one_token]),
        make("large scores", attention.accurate, shapes, scales=LARGE),
        make("masks", attention.accurate, shapes, masks=("some",)),
        make("rows without a key", attention.accurate, shapes, masks=("rows", "all")),
        make("ViViT-B's sizes", attention.accurate, base, sizes_vary=False, most=2),
        make("derived bound of rounding", attention.derived, (*shapes, *base), scales=(1.0, *LARGE), most=8),
        make("unbiased rounding", attention.unbiased, base, sizes_vary=False, most=1),
    ]


def invariants(function: str, dtype: str, shapes: tuple[Shape, ...] = GENERAL[:1]) -> list[Property]:
    """Returns the properties of a core, or its vector-Jacobian product, that compare it with itself."""
    make = partial(_of_core, function, dtype, shapes=shapes)
    some, both = ("some",), ("none", "some")
    return [
        make("masked tokens without influence", attention.masked_without_influence, masks=some),
        make("masked tokens not read", attention.masked_not_read, masks=some),
        make("padding", attention.padding, masks=both),
        make("permutations of tokens", attention.permutations, masks=both),
        make("permutations of heads", attention.heads, masks=both),
        make("examples of a batch apart", attention.examples),
        make("reduction to another variant", attention.reductions),
        *([] if function.endswith("_vjp") else [make("still videos", attention.still)]),
    ]


def _of_core(
    function: str,
    dtype: str,
    name: str,
    check: Callable[[Implementation, str, Any], None],
    shapes: tuple[Shape, ...],
    *,
    sizes_vary: bool = True,
    most: int = 10**9,
    **drawn: Any,
) -> Property:
    def draw(any_sizes: bool) -> st.SearchStrategy[Any]:
        listed = st.sampled_from(shapes)
        return cases(st.one_of(listed, any_shape()) if any_sizes and sizes_vary else listed, dtype, **drawn)

    return Property(function, name, dtype, check, draw, most)


def _of_tubelets(dtype: str) -> list[Property]:
    patches = config("spatio_temporal")
    sampled = config("spatio_temporal", tubelet=(1, 3, 7))
    tall = config("spatio_temporal", frames=3, tubelet=(3, 3, 5))
    return [
        _of_model("tubelet_embed", name, dtype, check, configs)
        for name, check, configs in (
            ("equality with the oracle", models.accurate, (patches, sampled, tall)),
            ("still videos", models.still, (patches,)),
            ("examples of a batch apart", models.examples, (patches,)),
        )
    ]


def _of_models(dtype: str) -> list[Property]:
    """The properties of `forward`: model by model, then option by option, so that a mistake is found under its name."""
    averaged = config("factorised_encoder", temporal_layers=0)
    rows: list[tuple[str, Callable[..., None], tuple[Config, ...]]] = [
        (f"model {number}, {model}", models.accurate, (config(model),))
        for number, model in enumerate(get_args(Model), start=1)
    ]
    for pooling in get_args(Pooling):
        of_token = pooling in ("token", "first")
        able = [model for model in get_args(Model) if not (of_token and model in WITHOUT_TOKEN)]
        rows.append((f"pooling {pooling}", models.accurate, tuple(config(m, pooling=pooling) for m in able[:2])))
    rows += [
        ("uniform frame sampling", models.accurate, (config("spatio_temporal", tubelet=(1, 3, 7), sampled_frames=3),)),
        *(
            (f"positions {kind}", models.accurate, (config("spatio_temporal", positions=kind),))
            for kind in get_args(Positions)
            if kind != "learned"
        ),
        ("space before time", models.accurate, (config("factorised_self_attention", order="space_time"),)),
        ("the exact GELU", models.accurate, (config("spatio_temporal", gelu="erf"),)),
        ("a representation layer", models.accurate, (config("spatio_temporal", representation=23),)),
        ("frames averaged", models.accurate, (averaged,)),
        ("order of frames that are averaged", models.order, (config(averaged.model, **TIMELESS),)),
        ("still videos", models.still, (averaged,)),
        ("examples of a batch apart", models.examples, (config("spatio_temporal"),)),
    ]
    return [_of_model("forward", name, dtype, check, configs) for name, check, configs in rows]


TIMELESS: dict[str, Any] = dict(temporal_layers=0, tubelet=(1, 3, 7))  # no part of a model tells frames apart


def _of_model(
    function: str, name: str, dtype: str, check: Callable[..., None], configs: tuple[Config, ...]
) -> Property:
    return Property(function, name, dtype, check, lambda _: model_cases(configs, dtype), 3 * len(configs))
