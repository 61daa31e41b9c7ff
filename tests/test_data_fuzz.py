"""Wrong inputs give a result or a one-line error. VIVIT_FUZZ_SECONDS sets the duration for each kind of input."""

import os

import pytest

from bench.fuzz import AREAS, BOUND, VIDEOS, fuzz

SECONDS = float(os.environ.get("VIVIT_FUZZ_SECONDS", "5"))


@pytest.mark.parametrize("area", AREAS)
def test_wrong_inputs_neither_crash_nor_hang_nor_fill_the_memory(area, real_films):
    found = fuzz(area, 60, seed=16, cases=40) if area != VIDEOS else fuzz(area, SECONDS)
    assert not found.faults, found.faults
    assert set(found.outcomes) <= {"used", "refused"}
    assert found.outcomes["refused"]
    assert found.peak < BOUND


def test_a_case_of_the_fuzzer_depends_on_its_number_alone(real_films):
    some, first, second = (fuzz(VIDEOS, 60, first=n, cases=count).outcomes for n, count in ((7, 2), (7, 1), (8, 1)))
    assert some == first + second
