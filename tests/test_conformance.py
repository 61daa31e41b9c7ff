"""Ours by XLA in the conformance kit: every property of vivit.conformance is a test of it.

`--hypothesis-profile=exhaustive` draws new cases, many, of any sizes.
"""

import pytest
from conforming import AGAINST_ORACLE, assert_passed, label

from vivit.conformance.adapters import xla
from vivit.conformance.implementation import examined
from vivit.conformance.properties import properties

XLA = examined(xla, "xla")
FAST = [each for each in properties() if each.name in AGAINST_ORACLE and each.function != "tubelet_embed"]


@pytest.mark.parametrize(
    "each",
    [
        pytest.param(each, marks=pytest.mark.fast if each.dtype == "float32" else pytest.mark.thorough, id=label(each))
        for each in FAST
    ],
)
def test_attention_by_xla_equals_the_oracle(each, chosen_plan):
    assert_passed(XLA, each, chosen_plan)


@pytest.mark.thorough
@pytest.mark.parametrize("each", [each for each in properties() if each not in FAST], ids=label)
def test_xla_conforms(each, chosen_plan):
    assert_passed(XLA, each, chosen_plan)
