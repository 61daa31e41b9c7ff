"""The model that ships with the package is what its README says it is."""

from importlib import resources
from pathlib import Path

import pytest

import vivit
from vivit.data.carousel import write_carousel
from vivit.reference.params import parameters
from vivit.training.carousel import RECIPE, datasets
from vivit.training.validation import evaluated, figures

HOME = Path(str(resources.files("vivit"))) / "demo"


@pytest.mark.fast
def test_the_demo_model_knows_scans_that_it_has_never_seen(tmp_path):
    pytest.importorskip("sklearn", reason="the [train] extra is not installed")
    write_carousel(tmp_path / "videos", train=4, validation=4, test=200)
    model = vivit.load(HOME / "carousel")
    assert 100_000 < parameters(model.config) < 110_000
    assert sum(path.stat().st_size for path in (HOME / "carousel").iterdir()) < 500_000
    found = figures(evaluated(model, datasets(tmp_path / "videos")["test"], RECIPE))
    assert found["verb/top_1"] >= 0.99
    assert found["noun/top_1"] >= 0.95
