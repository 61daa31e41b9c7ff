"""Wrong inputs give a result or a one-line error."""

import pytest

from bench.fuzz import AREAS, BOUND, VIDEOS, fuzz


@pytest.mark.parametrize("area", AREAS)
def test_wrong_inputs_neither_crash_nor_hang_nor_fill_the_memory(area, real_films):
    found = fuzz(area, 60, seed=16, cases=15 if area == VIDEOS else 40)
    assert not found.faults, found.faults
    assert set(found.outcomes) <= {"used", "refused"}
    assert found.outcomes["refused"]
    assert found.peak < BOUND


def test_a_case_of_the_fuzzer_depends_on_its_number_alone(real_films):
    some, first, second = (fuzz(VIDEOS, 60, first=n, cases=count).outcomes for n, count in ((7, 2), (7, 1), (8, 1)))
    assert some == first + second
