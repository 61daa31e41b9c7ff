"""Writes what a ViViT in PyTorch computes, stage by stage, for `vivit audit --against captured.npz`.

This file needs PyTorch, NumPy and the model's own library, and nothing of vivit: copy it to where the model runs.

    python capture_torch.py CHECKPOINT frames.npz captured.npz

CHECKPOINT is a folder or a name of transformers' VivitForVideoClassification or VivitModel. frames.npz holds `frames`,
uint8[n height width 3], the clip's frames in their own size; the checkpoint's own processor makes pixels of them. Or it
holds `pixels`, float32[1 n height width 3], which the model gets as they are. Any other model, such as lucidrains'
vit_pytorch.vivit.ViT: `numpy.savez("captured.npz", **capture(model, pixels))`.
"""

import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

Stages = dict[str, np.ndarray]
Record = Callable[[str, Any], None]


def capture(model: Any, pixels: np.ndarray) -> Stages:
    """Runs a model on pixels, and returns its stages under vivit's names, with "pixels" itself: float32 arrays.

    model: transformers' VivitForVideoClassification or VivitModel, with eager attention for its weights, or lucidrains'
    ViT for video. pixels: float32[1 frames height width 3]. Raises ValueError for another model.
    """
    modules = dict(model.named_modules())
    names = list(modules)
    if any(name.endswith("patch_embeddings") for name in names):
        hooks, order = _transformers_hooks(modules), (0, 1, 4, 2, 3)
    elif any(name.endswith("spatial_transformer") for name in names):
        hooks, order = _lucidrains_hooks(modules), (0, 4, 1, 2, 3)
    else:
        raise ValueError(f"{type(model).__name__} is neither transformers' ViViT nor lucidrains'")
    import torch  # pyright: ignore[reportMissingImports]

    stages: Stages = {}

    def record(name: str, value: Any) -> None:
        stages[name] = value.detach().float().cpu().numpy().copy()  # models change tensors in place

    handles = [hook(record) for hook in hooks]
    try:
        first = next(model.parameters())
        given = torch.from_numpy(np.ascontiguousarray(pixels.transpose(order))).to(first.device, first.dtype)
        with torch.no_grad():
            model.eval()(given)
    finally:
        for handle in handles:
            handle.remove()
    _finish(stages, len(pixels))
    return {"pixels": np.asarray(pixels, np.float32), **stages}


def _hook(module: Any, names: str | dict[int, str]) -> Callable[[Record], Any]:
    """Records what a module returns. names: of its one result, or of each that is recorded of several."""

    def attach(record: Record) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            if isinstance(names, str):
                record(names, output[0] if isinstance(output, tuple) else output)
                return
            for number, name in names.items():
                if isinstance(output, tuple) and len(output) > number and output[number] is not None:
                    record(name, output[number])

        return module.register_forward_hook(hook)

    return attach


def _input_hook(module: Any, name: str) -> Callable[[Record], Any]:
    return lambda record: module.register_forward_pre_hook(lambda _, inputs: record(name, inputs[0]))


def _transformers_hooks(modules: dict[str, Any]) -> list[Callable[[Record], Any]]:
    """Both generations of names: encoder.layer.3.attention.output.dense, and layers.3.attention.o_proj."""
    ends = {
        r"embeddings\.patch_embeddings": "tokens",
        r"embeddings": "encoder/tokens",
        r"(?:encoder\.layer|layers)\.(\d+)\.(?:attention\.output\.dense|attention\.o_proj)": "encoder/{}/attention",
        r"(?:encoder\.layer|layers)\.(\d+)\.(?:output\.dense|mlp\.fc2)": "encoder/{}/mlp",
        r"(?:encoder\.layer|layers)\.(\d+)": "encoder/{}/out",
        r"layernorm": "encoder/norm",
        r"pooler": "prelogits",
        r"classifier": "logits",
    }
    hooks = []
    for name, module in modules.items():
        plain = name.removeprefix("vivit.")
        for pattern, stage in ends.items():
            found = re.fullmatch(pattern, plain)
            if found:
                hooks.append(_hook(module, stage.format(*found.groups())))
        found = re.fullmatch(r"(?:encoder\.layer|layers)\.(\d+)\.(?:attention\.attention|attention)", plain)
        has_inner = f"{name}.attention" in modules
        if found and not has_inner:
            hooks.append(_hook(module, {1: f"encoder/{found[1]}/weights"}))
    return hooks


def _lucidrains_hooks(modules: dict[str, Any]) -> list[Callable[[Record], Any]]:
    hooks = []
    for name, module in modules.items():
        found = re.fullmatch(r"(spatial|temporal)_transformer(?:\.layers\.(\d+)\.(0|1))?(.*)", name)
        if name == "to_patch_embedding":
            hooks.append(_hook(module, "tokens"))
        elif name == "mlp_head":
            hooks += [_input_hook(module, "features"), _hook(module, "logits")]
        elif found:
            encoder = "encoder" if found[1] == "spatial" else "temporal_encoder"
            inner = f"{encoder}/{found[2]}"
            if found[2] is None and not found[4]:
                hooks += [_input_hook(module, f"{encoder}/tokens"), _hook(module, f"{encoder}/norm")]
            elif found[3] == "0" and not found[4]:
                hooks.append(_hook(module, f"{inner}/attention"))
            elif found[3] == "0" and found[4].endswith(".attend"):
                hooks.append(_hook(module, f"{inner}/weights"))
            elif found[3] == "1" and not found[4]:
                hooks.append(_hook(module, f"{inner}/mlp"))
    return hooks


def _finish(stages: Stages, batch: int) -> None:
    """Adds the stages that follow from others, and gives lucidrains' frames an axis of their own."""
    if "temporal_encoder/norm" in stages:
        for name in [name for name in stages if name.startswith("encoder/")]:
            value = stages.pop(name)
            stages[name.replace("/weights", "/space_weights")] = value.reshape(batch, -1, *value.shape[1:])
        stages["frames"] = stages["encoder/norm"][:, :, 0]
    else:
        stages["features"] = stages["encoder/norm"][:, 0]
    stages.setdefault("prelogits", stages["features"])
    stages.setdefault("logits", stages["prelogits"])


def main(checkpoint: str, frames: str, output: str) -> None:
    """Captures one clip through a checkpoint of transformers."""
    with np.load(frames, allow_pickle=False) as file:
        given = dict(file)
    model, processor = load(checkpoint)
    pixels = given["pixels"] if "pixels" in given else process(processor, given["frames"])
    np.savez(output, **capture(model, pixels))  # pyright: ignore[reportArgumentType]
    print(f"wrote {output}")


def load(checkpoint: str) -> tuple[Any, Any]:
    """Returns transformers' model and image processor of a checkpoint."""
    import transformers  # pyright: ignore[reportMissingImports]

    config = transformers.VivitConfig.from_pretrained(checkpoint)
    bare = "VivitModel" in (config.architectures or ())
    kind = transformers.VivitModel if bare else transformers.VivitForVideoClassification
    model = kind.from_pretrained(checkpoint, attn_implementation="eager")
    return model, transformers.VivitImageProcessor.from_pretrained(checkpoint)


def process(processor: Any, frames: np.ndarray) -> np.ndarray:
    """Returns what a processor makes of frames, uint8[n height width 3]: float32[1 n height width 3]."""
    pixels = np.asarray(processor(list(frames), return_tensors="np")["pixel_values"])
    return pixels.transpose(0, 1, 3, 4, 2).astype(np.float32)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
