"""Ours by Pallas in the conformance kit, interpreted, on fewer sizes than XLA: a program takes long to compile."""

import pytest
from conforming import AGAINST_ORACLE, assert_passed, label
from cores import SMALL_BLOCKS

from vivit.conformance.adapters import pallas
from vivit.conformance.implementation import CORES, DTYPES, examined
from vivit.conformance.properties import Property, invariants, of_core

PALLAS = examined(pallas, "pallas")
IN_BLOCKS = examined(pallas.kernels(block_sizes=SMALL_BLOCKS), "pallas in small blocks")
LONG = ((1, 3, 47, 2, 64),)
KERNEL_SIZES = {"float32": ((2, 3, 8, 2, 64),), "bfloat16": ((1, 5, 13, 4, 32),)}  # tile edges; primes


def of_kernels() -> list[Property]:
    """Against the oracle in both dtypes and directions; the invariants in float32, forwards; ViViT-B's sizes."""
    found = []
    for core in CORES:
        for dtype in DTYPES:
            for function in (core, f"{core}_vjp"):
                every = of_core(function, dtype, KERNEL_SIZES[dtype])
                names = AGAINST_ORACLE if function == core else (*AGAINST_ORACLE, "ViViT-B's sizes")
                found += [each for each in every if each.name in names]
        found += [each for each in every_forward(core) if each.name not in AGAINST_ORACLE]
        found += [
            each for each in invariants(f"{core}_vjp", "float32", KERNEL_SIZES["float32"]) if "token" in each.name
        ]
    return found


def every_forward(core: str) -> list[Property]:
    sizes = KERNEL_SIZES["float32"]
    return [*of_core(core, "float32", sizes), *invariants(core, "float32", sizes)]


IN_EVERY_RUN = ("masks", "large scores")


def marked(every: list[Property]) -> list:
    """The properties as parameters; most are examined in `make test-thorough` only."""
    return [each if each.name in IN_EVERY_RUN else pytest.param(each, marks=pytest.mark.thorough) for each in every]


@pytest.mark.parametrize("each", marked(of_kernels()), ids=label)
def test_the_kernels_conform(each, chosen_plan):
    assert_passed(PALLAS, each, chosen_plan)


def in_blocks() -> list[Property]:
    rows = []
    for core in CORES:
        for function in (core, f"{core}_vjp"):
            rows += [each for dtype in DTYPES for each in of_core(function, dtype, LONG) if each.name == "masks"]
            rows += [each for each in invariants(function, "float32", LONG) if "token" in each.name]
    return rows


@pytest.mark.thorough
@pytest.mark.parametrize("each", in_blocks(), ids=label)
def test_the_kernels_in_small_blocks_conform(each, chosen_plan):
    assert_passed(IN_BLOCKS, each, chosen_plan)
