"""The installed package: what importing loads, what wheel and sdist contain, and the public names."""

import ast
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import vivit
from vivit.audit.dossier import installed_hash

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
    code = "import sys; from vivit.cli.main import main; main(['info']); assert 'jax' not in sys.modules"
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


LAYERS = (  # a module may import from its own layer and from those above
    "reference",
    "numerics",
    "kernels",
    "files versions demo figures",
    "notebook",
    "hashes labels memory",
    "layers attention tubelet positions dropout reverse_once scan_in_place initialise",
    "ops",
    "pallas_ops gpu_ops",
    "backend encoder",
    "models",
    "video",
    "model_data",
    "jitted",
    "checkpoints",
    "data",
    "inference",
    "explanation",
    "pretrained",
    "bulk",
    "__init__ audit",
    "conformance",
    "puzzles",
    "training",
    "cli",
    "__main__",
)
LAYER = {f"vivit.{name}": number for number, names in enumerate(LAYERS) for name in names.split()}


def layer_of(module):
    """The number of a module's layer. Raises KeyError if it is in none."""
    while module not in LAYER and "." in module:
        module = module.rpartition(".")[0]
    return LAYER[module]


def graph():
    """The modules of ours that each module imports, wherever the statement stands: in functions, for types alone."""
    files = {}
    for folder in (ROOT / "reference", ROOT / "kernels", ROOT / "vivit"):
        for path in folder.rglob("*.py"):
            name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
            if path.resolve() == path:  # reference and kernels are links in vivit
                files["vivit.__init__" if name == "vivit" else f"vivit.{name.removeprefix('vivit.')}"] = path
    return {name: {one for one in imported(path, files) if one in files} for name, path in files.items()}


def imported(path, files):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ("vivit.__init__" if alias.name == "vivit" else alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in files else "vivit.__init__" if node.module == "vivit" else node.module


def upward(imports):
    """Pairs of a module and one that it imports, of a higher layer."""
    return [(one, other) for one in imports for other in imports[one] if layer_of(other) > layer_of(one)]


def circle(imports):
    """Modules that import one another in a ring, the first of them twice; [] if there is no ring."""
    done = set()

    def walk(module, path):
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        found = next(filter(None, (walk(other, [*path, module]) for other in sorted(imports[module]))), [])
        done.add(module)
        return found

    return next(filter(None, (walk(module, []) for module in sorted(imports))), [])


@pytest.mark.fast
def test_imports_go_one_way_layer_by_layer_and_in_no_circle():
    imports = graph()
    assert len(imports) > 100
    assert all(any(f"{module}.".startswith(f"{name}.") for module in imports) for name in LAYER)
    assert imports["vivit.cli.classify"] >= {"vivit.inference.classification", "vivit.pretrained"}  # in functions too
    assert upward(imports) == []
    assert circle(imports) == []


@pytest.mark.fast
def test_an_import_that_goes_up_and_a_circle_within_a_layer_are_found():
    imports = graph()
    imports["vivit.video.views"].add("vivit.inference.classification")
    assert upward(imports) == [("vivit.video.views", "vivit.inference.classification")]
    assert "vivit.video.views" in circle(imports)
    imports = graph()
    imports["vivit.video.container"].add("vivit.video.spec")
    assert upward(imports) == []
    assert {"vivit.video.container", "vivit.video.spec"} <= set(circle(imports))


def build(source, folder, *options):
    """Builds distributions of a copy of the tracked files in a folder, with the time stamp of a release."""
    subprocess.run(["git", "checkout-index", "--all", f"--prefix={source}/"], cwd=ROOT, check=True)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, *options, source]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"SOURCE_DATE_EPOCH": "1700000000"})


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The folder with a wheel and an sdist, built from a copy of the tracked files."""
    folder = tmp_path_factory.mktemp("distributions")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: nothing says which files belong to the project")
    build(folder / "source", folder)
    return folder


@pytest.mark.fast
def test_a_wheel_holds_the_three_packages_under_one_name(distributions):
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"vivit/models.py", "vivit/reference/models.py", "vivit/reference/README.md", "vivit/py.typed"} <= names
    for file in ("data/digits.npz", "video/bigbuckbunny.mp4"):  # what is under another licence, and its notice
        assert {f"vivit/{file}", f"vivit/{file.partition('/')[0]}/README.md"} <= names
    assert any(name.startswith("vivit/kernels/") for name in names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"vivit"}
    assert {f"vivit/reference/{path.name}" for path in (ROOT / "reference").glob("*.py")} <= names


def test_two_builds_of_the_wheel_are_equal_byte_for_byte(distributions, tmp_path):
    build(tmp_path / "elsewhere", tmp_path, "--wheel")
    ours, again = (next(folder.glob("*.whl")) for folder in (distributions, tmp_path))
    assert ours.name == again.name
    assert ours.read_bytes() == again.read_bytes()


def test_a_wheel_and_a_checkout_have_the_same_installed_files(distributions, tmp_path):
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    assert installed_hash(tmp_path / "vivit") == installed_hash(distributions / "source" / "vivit")


def test_what_is_installed_from_the_wheel_and_from_the_sdist_runs(distributions, tmp_path):
    code = """
import numpy as np, vivit, vivit.kernels
from vivit.reference import models
from vivit.audit.variants import random_params
from vivit.data.carousel import load_scans
from vivit.video.clip import demo_video
config = vivit.named("vivit-tiny/8x2-fsa")
video = np.zeros((1, 8, 32, 32, 3), np.uint8)
params = random_params(config)
assert np.abs(np.asarray(vivit.forward(params, video, config)) - models.forward(params, video, config)).max() < 1e-4
clip = vivit.read_clip(demo_video(), frames=32, height=224, width=224)
assert len(load_scans()[0]) == 1797 and clip.shape == (32, 224, 224, 3)
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
