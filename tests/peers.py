"""Other implementations, from the [peers] extra: transformers and timm on PyTorch. Tests without them are skipped."""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
import warnings

import pytest


def transformers():
    """Returns (torch, transformers)."""
    pytest.importorskip("torch", reason="the [peers] extra is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, while they are imported
        import torch  # pyright: ignore[reportMissingImports]
        import transformers  # pyright: ignore[reportMissingImports]
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    return torch, transformers


def video_processors():
    """Returns (torch, the module of VivitVideoProcessor), which can be imported without torchvision."""
    torch, _ = transformers()
    name = "transformers.models.vivit.video_processing_vivit"
    return torch, pytest.importorskip(name, reason="this transformers has no VivitVideoProcessor")


def timm():
    """Returns timm, with an empty torchvision: the registry has no CPU build of it, and a ViT does not use it."""
    pytest.importorskip("torch", reason="the [peers] extra is not installed")
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    stand_in = _StandIn()
    sys.meta_path.append(stand_in)  # the last to be asked: a real torchvision comes first
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import timm  # pyright: ignore[reportMissingImports]
    sys.meta_path.remove(stand_in)
    for name in [name for name, module in sys.modules.items() if isinstance(module, _Module)]:
        del sys.modules[name]  # transformers must not take it for the real one
    return timm


class _StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports every module of torchvision as an empty one, with a class for every name that is requested."""

    def find_spec(self, fullname, path, target=None):
        if fullname.partition(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Module(spec.name)

    def exec_module(self, module):
        """There is nothing to execute."""


class _Named(type):
    def __getattr__(cls, name):
        return f"{cls.__name__}.{name}"


class _Module(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Named(name, (), {})


def randomised(torch, module):
    """Sets every parameter of a module to normal values, so that zeros cannot hide errors, and evaluation mode."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.normal_(0.0, 0.15)
            if "norm" in name and name.endswith("weight"):
                parameter += 1
    return module.eval()
