"""How thoroughly to examine: seed, number of cases, sizes. Registers hypothesis's profile "exhaustive"."""

from dataclasses import dataclass

import hypothesis

EXHAUSTIVE = "exhaustive"  # draws new cases each run
EXAMPLES = 100  # of each property in that profile

hypothesis.settings.register_profile(EXHAUSTIVE, deadline=None, max_examples=EXAMPLES)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How thoroughly to examine. seed: of all that is drawn. examples: cases of each property.

    any_sizes: draw any sizes, instead of a few that are compiled once.
    """

    seed: int = 0
    examples: int = 6
    any_sizes: bool = False
