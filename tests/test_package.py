"""The package as it is installed: what importing loads, what a wheel and an sdist hold, what the public face is."""

import ast
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import vivit

ROOT = Path(__file__).parent.parent


def run(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, **options).stdout


@pytest.mark.fast
def test_importing_the_reference_loads_no_jax_and_only_numpy():
    code = """
import sys
before = set(sys.modules)
import vivit
import vivit.reference.models, vivit.reference.gradients, vivit.reference.costs
vivit.named("vivit-b/16x2")
loaded = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
print(sorted(name for name in loaded if not name.startswith("_")))
"""
    assert run(code).strip() == "['numpy', 'vivit']"


@pytest.mark.fast
def test_info_loads_no_jax():
    code = "import sys; from vivit import cli; cli.main(['info']); assert 'jax' not in sys.modules"
    run(code)


@pytest.mark.fast
def test_the_public_names_are_there_and_others_are_not():
    assert set(vivit.__all__) <= set(dir(vivit))
    assert all(getattr(vivit, name) is not None for name in vivit.__all__)
    with pytest.raises(AttributeError, match="module 'vivit' has no attribute 'dance'"):
        vivit.dance  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.fast
def test_the_reference_imports_numpy_and_the_standard_library_only():
    for path in (ROOT / "reference").glob("*.py"):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]):
                package = words[1].partition(".")[0]
                assert package in {"numpy", *sys.stdlib_module_names} or words[1].startswith("vivit.reference"), path


def imported(path):
    """The modules that a file names in import statements, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.fast
@pytest.mark.parametrize(
    ("folder", "below"),
    [("reference", ()), ("vivit/numerics", ()), ("kernels", ("reference", "numerics"))],
)
def test_imports_go_one_way(folder, below):
    name = folder.rpartition("/")[2]
    allowed = tuple(f"vivit.{package}" for package in (name, *below))
    for path in (ROOT / folder).glob("*.py"):
        for module in imported(path):
            assert not module.startswith("vivit") or module.startswith(allowed), f"{path} imports {module}"


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The folder with a wheel and an sdist, built from a copy of the tracked files."""
    folder = tmp_path_factory.mktemp("distributions")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: nothing says which files belong to the project")
    source = folder / "source"
    subprocess.run(["git", "checkout-index", "--all", f"--prefix={source}/"], cwd=ROOT, check=True)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source]
    subprocess.run(build, check=True, capture_output=True)
    return folder


@pytest.mark.fast
def test_a_wheel_holds_the_three_packages_under_one_name(distributions):
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"vivit/models.py", "vivit/reference/models.py", "vivit/reference/README.md", "vivit/py.typed"} <= names
    assert any(name.startswith("vivit/kernels/") for name in names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"vivit"}
    assert {f"vivit/reference/{path.name}" for path in (ROOT / "reference").glob("*.py")} <= names


def test_what_is_installed_from_the_wheel_and_from_the_sdist_runs(distributions, tmp_path):
    code = """
import numpy as np, vivit, vivit.kernels
from vivit.reference import models
from vivit.audit import random_params
config = vivit.named("vivit-tiny/8x2-fsa")
video = np.zeros((1, 8, 32, 32, 3), np.uint8)
params = random_params(config)
assert np.abs(np.asarray(vivit.forward(params, video, config)) - models.forward(params, video, config)).max() < 1e-4
print(vivit.__file__)
"""
    for kind in ("*.whl", "*.tar.gz"):
        (file,) = distributions.glob(kind)
        target = tmp_path / kind.strip("*.")
        install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--target", target, file]
        subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True)
        where = run(code, cwd=tmp_path, env={"PYTHONPATH": str(target), "JAX_PLATFORMS": "cpu", "PATH": ""})
        assert where.startswith(str(target))


@pytest.mark.fast
def test_the_sdist_holds_the_sources_once(distributions):
    (file,) = distributions.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert "reference/models.py" in names
    assert "LICENSE" in names
    assert not any(name.startswith("vivit/reference/") for name in names)
