"""The programs that `bench device` times: functions, arguments, and what the oracle says of the first clip.

A program is a Job of `bench schedule` that is run: the same function is compiled ahead of time for its prediction.
Layers of our models are scanned, with the recipe's default of remat; those of the plain graph are neither.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bench import model_schedule, workloads
from bench.formulations import program_of
from bench.schedule import DIRECTIONS, MODELS, Job
from bench.workloads import SMALL, WORKLOADS, Workload
from vivit.audit.bound import depth_of
from vivit.audit.variants import random_params, rounded
from vivit.pallas_ops import pallas
from vivit.reference import attention, encoder, gradients
from vivit.reference import models as reference
from vivit.reference.config import Config, named
from vivit.reference.costs import multiply_adds
from vivit.reference.params import Attention, LayerNorm, Params
from vivit.tubelet import cut, pixels

KINDS = {  # implementations, the plain one first: it gives the others their bound
    "core": ("core plain", "core pallas", "core splash"),
    "layer": ("layer plain", "layer ours"),
    "model": ("plain", "scanned", f"scanned {model_schedule.REMAT}"),
}
OURS = ("core pallas", "layer ours", *KINDS["model"][1:])
SMALL_SIZE = "vivit-tiny/8x2"


class Expected(NamedTuple):
    """An array of the oracle's, of the first clip."""

    what: str
    values: np.ndarray  # float64
    depth: int  # as vivit.audit.bound.compare's


def jobs(chip: str, only: Sequence[str]) -> list[Job]:
    """All programs, what matters most first: in bfloat16 cores, layers and models, model 2 first; then float32.

    only: of them, those whose names contain one of these; empty: all.
    """
    models = sorted(MODELS.values(), key=lambda suffix: suffix != "-fe")
    found = []
    for dtype in ("bfloat16", "float32"):
        for kind, implementations in KINDS.items():
            if kind == "model" and dtype == "float32":
                continue
            found += [
                Job(chip, dtype, name, implementation, direction, "auto" if kind == "core" else "default")
                for name in (models if kind == "model" else WORKLOADS)
                for direction in DIRECTIONS
                for implementation in implementations
                if kind != "model" or model_schedule.directions(implementation, (direction,))
            ]
    return [job for job in found if not only or any(text in title(job) for text in only)]


def kind_of(job: Job) -> str:
    return next((kind for kind in ("core", "layer") if job.implementation.startswith(kind)), "model")


def title(job: Job) -> str:
    """What a program is called: "core pallas spatial bfloat16 forward", or "… gradient"."""
    direction = "forward" if job.direction == "forward" else "gradient"
    name = f"model {[*MODELS.values()].index(job.workload) + 1}" if kind_of(job) == "model" else job.workload
    return f"{job.implementation} {name} {job.dtype} {direction}"


def program(
    job: Job, abstract: Callable[..., Any], *, small: bool, interpret: bool = False
) -> tuple[Callable[..., Any], tuple]:
    """(function, arguments). abstract(shape, dtype): an argument. interpret: kernels in Pallas's interpreter."""
    if kind_of(job) == "model":
        config, clips = _model(job, small)
        shapes, ops = SimpleNamespace(abstract=abstract), pallas(interpret)
        return model_schedule.program(shapes, job.dtype, config, clips, *job[3:5], ops=ops)
    work = _work(job, small)
    return program_of(abstract, job.dtype, work, job.implementation, job.direction, interpret=interpret)


def values(job: Job, *, small: bool) -> tuple:
    """The arguments of `program`: NumPy arrays, random, exact in bfloat16, the same for all implementations."""
    if kind_of(job) == "model":
        return _model_values(job, small)
    work = _work(job, small)
    if kind_of(job) == "core":
        qkv, cotangent = core_values(work)
        return (qkv,) if job.direction == "forward" else (qkv, cotangent)
    tokens, params = layer_values(work)
    return tokens, _split(params, work) if job.implementation == "layer plain" else params


def expected(job: Job, *, small: bool) -> list[Expected]:
    """What the oracle says of the results that `compared` picks; of a model's gradient it says nothing."""
    if kind_of(job) == "model":
        config, _ = _model(job, small)
        if job.direction != "forward":
            return []
        params, video, _ = _model_inputs(job, small)
        return [Expected("logits", reference.forward(params, video[:1], config), depth_of(config))]
    work = _work(job, small)
    if kind_of(job) == "core":
        qkv, cotangent = (part[:1].astype(np.float64) for part in core_values(work))
        found = [Expected("out", workloads.oracle(work)(qkv), 1)]
        if job.direction != "forward":
            found.append(Expected("gradient", workloads.oracle_gradient(work)(qkv, cotangent), 2))
        return found
    tokens, params = jax.tree.map(np.float64, layer_values(work))
    out, tokens_cotangent, _ = layer_oracle(work, tokens[:1], params)
    return [Expected("gradient", tokens_cotangent, 2) if job.direction != "forward" else Expected("out", out, 2)]


def compared(job: Job, results: Any) -> list[np.ndarray]:
    """Of a program's results what has an oracle: the first clip's."""
    if kind_of(job) == "layer" and job.direction != "forward":
        results = results[0]  # of the tokens; those of the parameters sum over all clips
    return [np.asarray(result[:1]).astype(np.float32) for result in jax.tree.leaves(results)]


def useful_multiply_adds(job: Job, *, small: bool) -> int:
    """Those that no formulation can avoid; a backward pass has twice the forward's."""
    times = 1 if job.direction == "forward" else 3
    if kind_of(job) == "model":
        config, clips = _model(job, small)
        return times * clips * multiply_adds(config)
    work = _work(job, small)
    return times * (work.core_multiply_adds + (kind_of(job) == "layer") * work.projection_multiply_adds)


def core_values(work: Workload) -> tuple[np.ndarray, np.ndarray]:
    """(qkv, cotangent of out), float32, exact in bfloat16."""
    generator = np.random.default_rng(1)
    shapes = ((*work.tokens, 3 * work.channels), (*work.tokens, work.channels))
    qkv, cotangent = (rounded(generator.standard_normal(shape, np.float32)) for shape in shapes)
    return qkv, cotangent


def layer_values(work: Workload) -> tuple[np.ndarray, tuple[LayerNorm, Attention]]:
    """(tokens, params) of workloads.layer."""
    generator = np.random.default_rng(2)

    def leaf(shape: tuple[int, ...]) -> np.ndarray:
        scale = 4 if len(shape) == 1 else np.sqrt(shape[0])
        return rounded(generator.standard_normal(shape, np.float32) / np.float32(scale))

    norm, params = workloads.layer_params(work, leaf)
    tokens = rounded(generator.standard_normal((*work.tokens, work.channels), np.float32))
    return tokens, (norm._replace(scale=rounded(1 + norm.scale)), params)


def layer_oracle(
    work: Workload, tokens: np.ndarray, params: tuple[LayerNorm, Attention]
) -> tuple[np.ndarray, np.ndarray, tuple[LayerNorm, Attention]]:
    """(out, and of Σ out² / 2 the cotangents of tokens and params), float64, of workloads.layer."""
    config = replace(named("vivit-b/16x2"), channels=work.channels, heads=work.heads, epsilon=workloads.EPSILON)
    core, core_vjp = getattr(attention, work.variant), getattr(gradients, f"{work.variant}_vjp")
    out = tokens + encoder.attention_branch(tokens, *params, config, core)
    through, norm, projections = gradients.attention_branch_vjp(tokens, *params, config, core, core_vjp, out)
    return out, out + through, (norm, projections)


def _work(job: Job, small: bool) -> Workload:
    return (SMALL if small else WORKLOADS)[job.workload]


def _split(params: tuple[LayerNorm, Attention], work: Workload) -> tuple:
    """The parameters of workloads.layer as workloads.plain_layer takes them."""
    norm, (fused, out) = params
    c, h = work.channels, work.heads
    parts = zip(np.split(fused.kernel, 3, axis=1), np.split(fused.bias, 3), strict=True)
    projections = tuple(
        fused._replace(kernel=kernel.reshape(c, h, c // h), bias=bias.reshape(h, c // h)) for kernel, bias in parts
    )
    return norm, projections, out._replace(kernel=out.kernel.reshape(h, c // h, c))


def _model(job: Job, small: bool) -> tuple[Config, int]:
    """(config, clips)."""
    if small:
        return named(SMALL_SIZE + job.workload), 2
    return named(model_schedule.SIZE + job.workload), model_schedule.clips(job.workload)


def _model_inputs(job: Job, small: bool) -> tuple[Params, np.ndarray, np.ndarray]:
    """(params, video uint8[b frames height width 3], labels int32[b])"""
    config, clips = _model(job, small)
    generator = np.random.default_rng(3)
    video = generator.integers(0, 256, (clips, config.frames, config.height, config.width, 3), np.uint8)
    return random_params(config), video, generator.integers(0, config.classes[0], clips, np.int32)


def _model_values(job: Job, small: bool) -> tuple:
    params, video, labels = _model_inputs(job, small)
    shown = (
        cut(video, _model(job, small)[0])[0]
        if job.implementation != "plain"
        else np.asarray(pixels(jnp.asarray(video)))
    )
    if job.direction == "forward":
        return params, shown
    return params, shown, labels, np.zeros(len(labels), np.uint32)  # the seeds of a dropout that there is not
