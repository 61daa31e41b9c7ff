"""What is not installed, and the extra of this package that brings it."""

EXTRAS = {
    "train": ("grain", "optax", "orbax", "sklearn", "tensorboardX"),
    "plot": ("matplotlib",),
    "hub": ("huggingface_hub",),
    "demo": ("skvideo",),
    "tpu": ("libtpu",),
    "peers": ("torch", "transformers"),
}


def missing(error: ModuleNotFoundError) -> str:
    """One line that says what is not installed, and how to install it."""
    module = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if module in modules:
            return f'{module} is not installed: install it with: pip install "vivit[{extra}]"'
    return f"{module or error} is not installed"
