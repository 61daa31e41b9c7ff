"""The conformance kit finds each planted fault, under the name of the property that it breaks, and passes no other."""

import re
from dataclasses import replace

import numpy as np
import pytest
from students import Student

from vivit.conformance.cases import GENERAL
from vivit.conformance.examine import examine, examine_property
from vivit.conformance.implementation import examined
from vivit.conformance.plan import Plan
from vivit.conformance.properties import Property, invariants, of_core, properties

EQUAL, LARGE, MASKS, EMPTY = "equality with the oracle", "large scores", "masks", "rows without a key"
INFLUENCE, READ, PADDING = "masked tokens without influence", "masked tokens not read", "padding"
ORDER, HEADS, BATCH = "permutations of tokens", "permutations of heads", "examples of a batch apart"
REDUCTION, STILL, ONE = "reduction to another variant", "still videos", "sequences of one token"
EVERY = {EQUAL, LARGE, MASKS, EMPTY, INFLUENCE, READ, PADDING, ORDER, HEADS, BATCH, REDUCTION, STILL, ONE}
AGAINST_ORACLE = {EQUAL, LARGE, MASKS, EMPTY}
ON_VIVIT_B = {"ViViT-B's sizes", "derived bound of rounding", "unbiased rounding"}  # they have tests of their own
PLAN, PLAN_OF_MANY = Plan(examples=4), Plan(examples=20)


def rows(function: str, dtype: str = "float32") -> list[Property]:
    found = [*of_core(function, dtype, GENERAL[:1]), *invariants(function, dtype)]
    return [each for each in found if each.name not in ON_VIVIT_B]


def failed(subject, chosen):
    return {each.name for each in examine(examined(subject, "student"), PLAN, chosen) if each.outcome == "failed"}


class ScaleMissing(Student):
    def scale(self, d):
        return np.float32(1.0)


class NoLargestSubtracted(Student):
    def exponentials(self, scores):
        return np.exp(scores)


class MaskIgnored(Student):
    def seen(self, mask):
        return np.ones_like(mask)


class MaskOfTheFirstExample(Student):
    def seen(self, mask):
        return np.broadcast_to(mask[:1], mask.shape)


class MaskedIsRead(Student):
    def read(self, qkv, mask):
        return qkv


class EmptyRowsDividedByZero(Student):
    def weights(self, query, key, mask):
        weights = super().weights(query, key, mask)
        return weights / weights.sum(axis=-1, keepdims=True)


class HeadsInterleaved(Student):
    def split(self, qkv, heads):
        parts = qkv.reshape(*qkv.shape[:-1], 3, -1, heads).swapaxes(-1, -2)
        return [parts[..., i, :, :] for i in range(3)]


class HeadsLeak(Student):
    def spatial(self, qkv, heads, *, mask=None):
        out = super().spatial(qkv, heads, mask=mask)
        out[..., :7] += np.float32(0.01) * out[..., 7:14]
        return out


class KeyBeforeQuery(Student):
    def split(self, qkv, heads):
        query, key, value = super().split(qkv, heads)
        return [key, query, value]


class TimeAndSpaceTransposed(Student):
    def spatial(self, qkv, heads, *, mask=None):
        return super().temporal(qkv, heads, mask=mask)


class Causal(Student):
    def weights(self, query, key, mask):
        earlier = np.tri(query.shape[-2], dtype=bool)
        return super().weights(query, key, earlier if mask is None else earlier & mask)


class BatchLeaks(Student):
    def spatial(self, qkv, heads, *, mask=None):
        out = super().spatial(qkv, heads, mask=mask)
        return out + np.float32(0.01) * out[:1]


class SlopeTwice(Student):
    def pull(self, axis, qkv, cotangent, heads, mask):
        return 2 * super().pull(axis, qkv, cotangent, heads, mask)


class SlopeOffByAThousandth(Student):
    def pull(self, axis, qkv, cotangent, heads, mask):
        return np.float32(1.001) * super().pull(axis, qkv, cotangent, heads, mask)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("fault", "function", "found"),
    [
        (Student, "joint", set()),
        (Student, "spatial", set()),
        (Student, "temporal", set()),
        (Student, "factorised_dot_product", set()),
        (Student, "joint_vjp", set()),
        (ScaleMissing, "spatial", AGAINST_ORACLE),
        (NoLargestSubtracted, "temporal", {LARGE}),
        (MaskIgnored, "joint", {MASKS, EMPTY, INFLUENCE, READ, PADDING}),
        (MaskOfTheFirstExample, "spatial", {MASKS, EMPTY, INFLUENCE, READ}),
        (MaskedIsRead, "spatial", {READ}),
        (EmptyRowsDividedByZero, "spatial", {EMPTY}),
        (HeadsInterleaved, "spatial", {*AGAINST_ORACLE, ONE, HEADS}),
        (HeadsLeak, "spatial", {*AGAINST_ORACLE, ONE, HEADS, REDUCTION}),
        (KeyBeforeQuery, "temporal", AGAINST_ORACLE),
        (TimeAndSpaceTransposed, "spatial", {*AGAINST_ORACLE, ONE, REDUCTION}),
        (Causal, "spatial", {*AGAINST_ORACLE, ORDER}),
        (BatchLeaks, "spatial", {*AGAINST_ORACLE, ONE, READ, BATCH, REDUCTION}),
        (SlopeTwice, "joint_vjp", AGAINST_ORACLE),
        (SlopeTwice, "joint", set()),
        (SlopeOffByAThousandth, "joint_vjp", {EQUAL, MASKS, EMPTY}),
    ],
)
def test_a_fault_breaks_the_properties_that_it_should_and_no_others(fault, function, found):
    assert failed(fault(), rows(function)) == found


class AddsInPlace(Student):
    def spatial(self, qkv, heads, *, mask=None):
        qkv *= 2
        return super().spatial(qkv / 2, heads, mask=mask)


class Double(Student):
    def spatial(self, qkv, heads, *, mask=None):
        return super().spatial(qkv, heads, mask=mask).astype(np.float64)


class Flat(Student):
    def spatial(self, qkv, heads, *, mask=None):
        return super().spatial(qkv, heads, mask=mask).reshape(len(qkv), -1)


class Listed(Student):
    def spatial(self, qkv, heads, *, mask=None):
        return super().spatial(qkv, heads, mask=mask).tolist()


class Raises(Student):
    def spatial(self, qkv, heads, *, mask=None):
        raise RuntimeError("out of\nmemory")


class Exits(Student):
    def spatial(self, qkv, heads, *, mask=None):
        raise SystemExit(3)


class SupportsRaises(Student):
    def supports(self, shape, heads):
        raise KeyError(heads)


class NotANumber(Student):
    def spatial(self, qkv, heads, *, mask=None):
        out = super().spatial(qkv, heads, mask=mask)
        out[-1, -1, -1, -1] = np.nan
        return out


class Random(Student):
    generator = np.random.default_rng(0)

    def spatial(self, qkv, heads, *, mask=None):
        return super().spatial(qkv, heads, mask=mask) + np.float32(self.generator.random() < 0.5)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (AddsInPlace, r"spatial changes its argument of shape \[2, 3, 5, 84\]"),
        (Double, r"spatial returns float64\[2, 3, 5, 28\]: it must be float32\[2, 3, 5, 28\]"),
        (Flat, r"spatial returns float32\[2, 420\]: it must be float32\[2, 3, 5, 28\]"),
        (Listed, "spatial returns a list: it must be an array"),
        (Raises, "spatial raises RuntimeError: out of memory"),
        (Exits, "spatial raises SystemExit: 3"),
        (SupportsRaises, "supports raises KeyError: 4"),
        (NotANumber, r"error nan exceeds bound .* at \[1, 2, 4, 27\] actual nan, expected"),
        (Random, "the same arguments do not always give the same result"),
    ],
)
def test_what_is_wrong_whatever_the_values_is_a_failure_in_one_line(fault, message):
    verdict = examine_property(examined(fault(), "student"), rows("spatial")[0], PLAN_OF_MANY)
    assert verdict.outcome == "failed"
    assert re.search(message, str(verdict))
    assert "\n" not in str(verdict)


@pytest.mark.fast
def test_a_failure_states_the_smallest_case_the_worst_element_and_the_bound():
    class WrongBeyondFourTokens(Student):
        def temporal(self, qkv, heads, *, mask=None):
            out = super().temporal(qkv, heads, mask=mask)
            out[:, 4:, -1, 3] += 1
            return out

    (row,) = (each for each in of_core("temporal", "float32") if each.name == EQUAL)
    verdict = examine_property(examined(WrongBeyondFourTokens(), "student"), row, Plan(seed=5, examples=20))
    assert verdict.case == "b 1, t 5, s 13, 2 heads of 64, float32, seed 0"
    assert verdict.worst == (0, 4, 12, 3)
    assert verdict.actual - verdict.expected == pytest.approx(1, abs=1e-4)
    assert verdict.error is not None
    assert verdict.bound is not None
    assert verdict.error > 1e4 * verdict.bound > 0


class MeanForTheClassToken(Student):
    def config(self, config):
        return replace(config, pooling="mean") if config.pooling == "token" else config


class TanhForTheExactGelu(Student):
    def config(self, config):
        return replace(config, gelu="tanh")


class TimeFirst(Student):
    def config(self, config):
        return replace(config, order="time_space")


class PatchesBeforeTime(Student):
    def order(self, cut):
        return cut.transpose(0, 1, 3, 5, 4, 6, 2, 7)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("fault", "wrong", "right"),
    [
        (MeanForTheClassToken, "pooling token", "pooling mean"),
        (TanhForTheExactGelu, "the exact GELU", "pooling mean"),
        (TimeFirst, "space before time", "model 3, factorised_self_attention"),
        (PatchesBeforeTime, "equality with the oracle", "examples of a batch apart"),
    ],
)
def test_a_fault_of_a_model_is_found_under_its_name(fault, wrong, right):
    chosen = [each for each in properties() if each.name in (wrong, right) and each.dtype == "float32"]
    chosen = [
        each for each in chosen if each.function == ("tubelet_embed" if fault is PatchesBeforeTime else "forward")
    ]
    verdicts = {each.name: each.outcome for each in examine(examined(fault(), "student"), Plan(examples=1), chosen)}
    assert verdicts == {wrong: "failed", right: "passed"}
