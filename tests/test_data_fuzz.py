"""Damaged real videos give frames or a one-line error; VIVIT_FUZZ_SECONDS says for how long it is tried."""

import os

from bench.fuzz import BOUND, fuzz

SECONDS = float(os.environ.get("VIVIT_FUZZ_SECONDS", "5"))


def test_damaged_videos_neither_crash_nor_hang_nor_fill_the_memory(demo_path):
    faults, outcomes, peak = fuzz(SECONDS)
    assert not faults, faults
    assert set(outcomes) == {"frames", "refused"}
    assert peak < BOUND


def test_a_case_of_the_fuzzer_depends_on_its_number_alone(demo_path):
    _, some, _ = fuzz(60, first=7, cases=2)
    _, first, _ = fuzz(60, first=7, cases=1)
    _, second, _ = fuzz(60, first=8, cases=1)
    assert some == first + second
