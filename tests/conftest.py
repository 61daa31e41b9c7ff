"""Strict settings for all tests: no implicit promotion of dtypes or ranks, the CPU, the same examples in every run."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import hypothesis
import jax
import pytest

from vivit.conformance.plan import EXHAUSTIVE, Plan  # which registers the profile of this name
from vivit.conformance.plugin import plan

jax.config.update("jax_num_cpu_devices", 8)  # for what is sharded
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config: pytest.Config) -> None:
    """`pytest -m gpu` runs on the attached GPU, if there is one."""
    if config.getoption("markexpr") == "gpu":
        jax.config.update("jax_platforms", "cuda,cpu")


hypothesis.settings.register_profile("project", deadline=None, derandomize=True, max_examples=20, print_blob=True)
hypothesis.settings.load_profile("project")


@pytest.fixture(scope="session")
def chosen_plan(pytestconfig) -> Plan:
    """A few cases of each property; as vivit.conformance.plugin plans where the profile is exhaustive."""
    exhaustive = pytestconfig.getoption("--hypothesis-profile", default=None) == EXHAUSTIVE
    return plan(pytestconfig) if exhaustive else Plan(examples=4)


@pytest.fixture(scope="module")
def compiled_quickly():
    """JAX compiles quickly rather than well; what it compiled is forgotten afterwards."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()


@pytest.fixture(scope="session")
def demo_path():
    """The real video that comes with the package."""
    from vivit.video.clip import demo_video

    return demo_video()


@pytest.fixture(scope="session")
def real_films():
    """From their names to the paths of the real videos of the [test] extra."""
    from bench.film import films

    try:
        return films()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
