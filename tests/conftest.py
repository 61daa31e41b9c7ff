"""The strictest settings: no silent promotion of dtypes or ranks, the CPU, the same examples every run."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import hypothesis
import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)  # for what is sharded
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("project", deadline=None, derandomize=True, max_examples=20, print_blob=True)
hypothesis.settings.load_profile("project")


@pytest.fixture(scope="session")
def demo_path():
    """The real video of the [demo] extra."""
    from vivit.video import demo_video

    try:
        return demo_video()
    except ValueError as error:
        pytest.skip(str(error))
