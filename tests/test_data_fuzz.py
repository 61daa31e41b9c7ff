"""Wrong inputs give an answer or one line; VIVIT_FUZZ_SECONDS says for how long each kind is tried."""

import os

import pytest

from bench.fuzz import AREAS, BOUND, VIDEOS, fuzz

SECONDS = float(os.environ.get("VIVIT_FUZZ_SECONDS", "5"))


@pytest.mark.parametrize("area", AREAS)
def test_wrong_inputs_neither_crash_nor_hang_nor_fill_the_memory(area, demo_path):
    found = fuzz(area, 60, seed=16, cases=40) if area != VIDEOS else fuzz(area, SECONDS)
    assert not found.faults, found.faults
    assert set(found.outcomes) <= {"used", "refused"}
    assert found.outcomes["refused"]
    assert found.peak < BOUND


def test_a_case_of_the_fuzzer_depends_on_its_number_alone(demo_path):
    some, first, second = (fuzz(VIDEOS, 60, first=n, cases=count).outcomes for n, count in ((7, 2), (7, 1), (8, 1)))
    assert some == first + second
