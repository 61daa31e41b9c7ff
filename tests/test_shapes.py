"""The shapes and dtypes in annotations are correct: a type checker verifies them in a process that runs the models."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.fast
CHECKED = ("attention", "layers", "tubelet", "positions", "encoder", "models")
CODE = f"""
import jax, numpy as np, pytest
from dataclasses import replace
from jaxtyping import TypeCheckError, install_import_hook

with install_import_hook([f"vivit.{{name}}" for name in {CHECKED}], "beartype.beartype"):
    import vivit
    from vivit import attention, layers, models, tubelet
    from vivit.audit.variants import random_params

for name in ("vivit-tiny/8x2", "vivit-tiny/8x2-fe", "vivit-tiny/8x2-fsa", "vivit-tiny/8x2-fdp"):
    named = vivit.named(name)
    pooling = "mean" if named.pooling == "mean" else "first"
    config = replace(named, frames=6, height=32, width=48, layers=1, pooling=pooling, sampled_frames=None)
    params = jax.tree.map(jax.numpy.asarray, random_params(config))
    video = np.zeros((3, 6, 32, 48, 3), np.uint8)
    given = dict(rng=jax.random.key(0), dropout=0.1, attention_dropout=0.1, stochastic_depth=0.1)
    for options in ({{"dtype": "bfloat16"}}, {{"frames_valid": np.array([6, 3, 1])}}, {{"capture": {{}}}}, given):
        jax.eval_shape(lambda params: models.forward(params, video, config, **options), params)
    jax.eval_shape(
        jax.grad(lambda params: models.forward(params, video, config, frames_valid=np.array([6, 3, 1])).sum()), params
    )
    jax.eval_shape(lambda params: models.forward(params, vivit.cut(video, config)[0], config), params)

qkv = np.ones((2, 3, 5, 24), np.float32)
for wrong in (
    lambda: attention.joint(jax.numpy.asarray(qkv), 2),  # four axes for three
    lambda: attention.spatial(jax.numpy.asarray(qkv), 2, mask=jax.numpy.ones((2, 5, 3), bool)),
    lambda: layers.pool(jax.numpy.ones((2, 3, 4), jax.numpy.bfloat16), "mean"),
    lambda: tubelet.patches(jax.numpy.ones((6, 32, 48, 3)), (2, 16, 16)),
):
    with pytest.raises(TypeCheckError):
        wrong()
print("checked")
"""
KERNELS = ("attention", "spatial", "temporal", "factorised", "flash", "softmax_av", "heads", "dense")
KERNELS_CODE = f"""
from functools import partial
import jax, numpy as np, pytest
from jaxtyping import TypeCheckError, install_import_hook

with install_import_hook([f"vivit.kernels.{{name}}" for name in {KERNELS}], "beartype.beartype"):
    from vivit.kernels import attention, dense, flash
    from vivit.kernels.block_sizes import BlockSizes
    from vivit.numerics.hash_dropout import Dropout
    from vivit.reference.params import Dense, LayerNorm, Mlp

array = jax.ShapeDtypeStruct


def traced(f, *arrays):
    jax.eval_shape(jax.grad(lambda *arrays: f(*arrays).astype(np.float32).sum()), *arrays)


def attend(core, tokens, channels, dtype, sizes=None, rate=0.0):
    def f(qkv, mask=None):
        drawn = Dropout(jax.numpy.zeros((2, 2, 2), np.int32), rate) if rate else None
        return core(qkv, 2, mask=mask, dropout=drawn, block_sizes=sizes, interpret=True)
    traced(f, array((2, *tokens, 3 * channels), dtype), *([array((2, *tokens), bool)] if rate else []))


for core in (attention.spatial, attention.temporal, attention.factorised_dot_product):
    attend(core, (3, 5), 128, "float32")
    attend(core, (3, 5), 128, "bfloat16", rate=0.1)
attend(attention.spatial, (3, 5), 60, "float32", rate=0.1)
cut = BlockSizes(longest=4, queries=16, queries_backward=16, keys=128, keys_backward=128)
attend(attention.joint, (150,), 128, "float32", cut)
attend(attention.joint, (150,), 128, "bfloat16", cut, rate=0.1)
attend(attention.joint, (150,), 256, "bfloat16", cut._replace(keys_together=128))

for dtype in ("float32", "bfloat16"):
    weights = lambda c, f: Dense(np.zeros((c, f), np.float32), np.zeros(f, np.float32))
    norm, mlp = LayerNorm(*np.zeros((2, 128), np.float32)), Mlp(weights(128, 256), weights(256, 128))
    tokens, beside = array((2, 3, 5, 128), np.float32), array((2, 3, 5, 64), dtype)
    traced(lambda z: dense.norm_dense(z, norm, mlp.hidden, 1e-6, dtype, interpret=True), tokens)
    both = lambda z: dense.norm_dense(z, norm, mlp.hidden, 1e-6, dtype, residual=True, interpret=True)
    traced(lambda z: sum(part.sum() for part in both(z)), tokens)
    traced(lambda z, x: dense.residual_dense(z, x, weights(64, 128), dtype, interpret=True), tokens, beside)
    traced(lambda z: dense.residual_mlp(z, norm, mlp, "tanh", 1e-6, dtype, interpret=True), tokens)

one = np.ones((2, 3, 5, 384), np.float32)
for wrong in (
    lambda: flash.flash(jax.numpy.asarray(one), None, None, 2, None),  # four axes for three
    lambda: dense.residual_dense(jax.numpy.ones((5, 128)), jax.numpy.ones((4, 64)), weights(64, 128), "float32"),
    lambda: dense.norm_dense(jax.numpy.ones((5, 128), "bfloat16"), norm, mlp.hidden, 1e-6, "bfloat16"),
):
    with pytest.raises(TypeCheckError):
        wrong()
print("checked")
"""


@pytest.mark.parametrize("code", [CODE, KERNELS_CODE], ids=["models", "kernels"])
def test_what_is_computed_has_the_shapes_and_dtypes_of_the_annotations(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "checked", done.stderr[-3000:]
