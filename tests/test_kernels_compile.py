"""The kernels compiled ahead of time for TPU v3, v4, v5e and v6e by libtpu, and lowered from a CPU host."""

import os
import re
from collections import Counter
from dataclasses import replace
from functools import cache, partial

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # tests run in several processes

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from strategies import CORES, DTYPES, MODELS, mostly_thorough, random_params, small, video

import vivit
from vivit.conformance.quickly import QUICKLY
from vivit.encoder import attention_residual
from vivit.kernels import attention as kernels
from vivit.kernels.block_sizes import BlockSizes, table
from vivit.kernels.chip import name as chip_name
from vivit.kernels.chip import vmem_bytes
from vivit.kernels.heads import LANES
from vivit.layers import LayerConfig
from vivit.ops import XLA
from vivit.pallas_ops import INTERPRETED, PALLAS
from vivit.reference.config import Config, named
from vivit.reference.dropout import AttentionDrops, MlpDrops
from vivit.reference.params import Attention, Dense, LayerNorm, Mlp, Params, convert, shapes

CHIPS = {"v3": "v3:2x2", "v4": "v4:2x2x1", "v5e": "v5e:2x2", "v6e": "v6e:2x2"}
C, HEADS = 768, 12  # ViViT-B
TOKENS = {  # what the cores of the four ViViT-B/16x2 models see: with class tokens in models 1 and 2
    "joint": (1, 3137),
    "spatial": (1, 16, 197),
    "temporal": (1, 16, 196),
    "factorised_dot_product": (1, 16, 196),
}


@cache
def mesh_of(chip: str, devices: int = 1) -> Mesh:
    topology = topologies.get_topology_desc(platform="tpu", topology_name=CHIPS[chip])
    return Mesh(np.array(topology.devices[:devices]), ("b",))


def row_major(chip: str, shape: tuple[int, ...], dtype: str) -> tuple[jax.ShapeDtypeStruct, Format]:
    """An argument in the layout in which kernels hand tokens to one another."""
    sharding = NamedSharding(mesh_of(chip), PartitionSpec())
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding), Format(Layout(tuple(range(len(shape)))), sharding)


def abstract(config: Config, chip: str) -> tuple[Params, NamedSharding]:
    """Parameters in float32 on a chip, and where they are."""
    sharding = NamedSharding(mesh_of(chip), PartitionSpec())
    leaf = partial(jax.ShapeDtypeStruct, dtype="float32", sharding=sharding)
    return convert(shapes(config), lambda _, one: leaf(one.shape)), sharding


def copies(text: str) -> list[str]:
    """XLA's copies and transposes of arrays as large as tokens, in a compiled program."""
    found = re.findall(r"= \(?(?:f32|bf16)\[([\d,]+)\]\S* (?:copy|transpose)\(", text)
    return [shape for shape in found if np.prod([int(size) for size in shape.split(",")]) >= 16 * 196 * C]


def kernels_used(jaxpr):
    """The names of the kernels in a jaxpr of which some result is used; XLA leaves out the others."""
    used = {*map(id, jaxpr.outvars)}
    for equation in reversed(jaxpr.eqns):
        if not any(id(variable) in used for variable in equation.outvars):
            continue
        used |= {*map(id, equation.invars)}
        if equation.primitive.name == "pallas_call":
            yield equation.params["name"]
            continue
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from kernels_used(inner)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("chip", mostly_thorough(CHIPS, "v3", "v5e"))
def test_every_core_and_its_gradient_compile_for_every_chip(chip, core, dtype):
    def both(qkv, cotangent):
        out, pull = jax.vjp(lambda qkv: getattr(kernels, core)(qkv, HEADS), qkv)
        return out, pull(cotangent)[0]

    with jax.set_mesh(mesh_of(chip)):
        arguments = [row_major(chip, (*TOKENS[core], channels), dtype) for channels in (3 * C, C)]
        abstract, formats = zip(*arguments, strict=True)
        compiled = jax.jit(both, in_shardings=formats, out_shardings=formats[::-1]).lower(*abstract).compile()
    text = compiled.as_text()
    assert text.count('custom_call_target="tpu_custom_call"') >= 2
    assert not copies(text)


@pytest.mark.parametrize("chip", sorted({shape.chip for shape in table()}))
def test_block_sizes_of_the_table_fit(chip):
    shape, sizes = next((shape, sizes) for shape, sizes in table().items() if shape.chip == chip)
    tokens = (1, *(shape.tokens[1:] if shape.core == "joint" else shape.tokens))

    def pulled(qkv, cotangent):
        return jax.vjp(partial(getattr(kernels, shape.core), heads=shape.heads), qkv)[1](cotangent)[0]

    with jax.set_mesh(mesh_of(chip)):
        assert (chip_name(), sizes != BlockSizes()) == (chip, True)
        arguments = [row_major(chip, (*tokens, n * shape.channels), shape.dtype)[0] for n in (3, 1)]
        assert "tpu_custom_call" in jax.jit(pulled).lower(*arguments).compile().as_text()


def test_a_kernel_for_no_known_chip_may_use_the_memory_of_the_smallest():
    found = {}
    for chip in CHIPS:
        with jax.set_mesh(mesh_of(chip)):
            found[chip] = vmem_bytes()
    assert vmem_bytes() == min(found.values()) == found["v3"]


@pytest.mark.parametrize("core", mostly_thorough(CORES, "joint", "temporal"))
def test_exact_products_compile_too(core):
    def pulled(qkv, cotangent):
        return jax.vjp(lambda qkv: getattr(kernels, core)(qkv, HEADS, precision="highest"), qkv)[1](cotangent)[0]

    with jax.set_mesh(mesh_of("v3")):
        arguments = [row_major("v3", (*TOKENS[core], channels), "float32")[0] for channels in (3 * C, C)]
        assert "tpu_custom_call" in jax.jit(pulled).lower(*arguments).compile().as_text()


@pytest.mark.parametrize("chip", ["v3", "v5e"])
def test_a_layer_hands_its_tokens_on_without_copies(chip):
    config = LayerConfig(HEADS, "tanh", 1e-6, "time_space", "bfloat16")

    def layer(tokens, params):
        return attention_residual(
            tokens, *params, AttentionDrops(), PALLAS.spatial, "attention", None, PALLAS, config, None
        )

    with jax.set_mesh(mesh_of(chip)):
        tokens, format_ = row_major(chip, (2, 16, 197, C), "float32")
        leaf = partial(jax.ShapeDtypeStruct, dtype="float32", sharding=format_.sharding)
        params = (
            LayerNorm(leaf((C,)), leaf((C,))),
            Attention(Dense(leaf((C, 3 * C)), leaf((3 * C,))), Dense(leaf((C, C)), leaf((C,)))),
        )
        compiled = jax.jit(layer, in_shardings=(format_, None), out_shardings=format_).lower(tokens, params).compile()
    assert compiled.as_text().count('custom_call_target="tpu_custom_call"') == 3
    assert not copies(compiled.as_text())


@pytest.mark.parametrize(("shape", "c"), [((8, 17), 768), ((2, 16, 197), 768), ((1, 16, 197), 1280)])
def test_the_gradient_of_an_mlp_fits_in_the_memory_of_a_v3_and_copies_nothing(shape, c):
    """The temporal and the spatial encoder of ViViT-B, and the spatial one of ViViT-H, whose weights are cut."""
    config = LayerConfig(HEADS, "tanh", 1e-6, "time_space", "bfloat16")

    def gradient(tokens, params, cotangent):
        def layer(tokens, params):
            return PALLAS.residual_mlp(tokens, *params, MlpDrops(), config)

        return jax.vjp(layer, tokens, params)[1](cotangent)

    with jax.set_mesh(mesh_of("v3")):
        tokens, format_ = row_major("v3", (*shape, c), "float32")
        leaf = partial(jax.ShapeDtypeStruct, dtype="float32", sharding=format_.sharding)
        mlp = Mlp(Dense(leaf((c, 4 * c)), leaf((4 * c,))), Dense(leaf((4 * c, c)), leaf((c,))))
        jitted = jax.jit(gradient, in_shardings=(format_, None, format_), out_shardings=(format_, None))
        text = jitted.lower(tokens, (LayerNorm(leaf((c,)), leaf((c,))), mlp), tokens).compile().as_text()
    assert text.count('custom_call_target="tpu_custom_call"') == 2
    assert not copies(text)


@pytest.mark.parametrize("chip", ["v3", "v5e"])
@pytest.mark.parametrize("remat", ["fast", "lean"])
def test_a_lean_step_recomputes_what_is_before_and_after_the_attention_and_a_fast_one_nothing(remat, chip):
    """Kernels of one layer of model 1, 1024 tokens: the hidden layer is computed again by its own backward kernel."""
    config = replace(named("vivit-b/16x2"), height=128, width=128, layers=1)
    params = convert(shapes(config), lambda _, leaf: jax.ShapeDtypeStruct(leaf.shape, "float32"))
    clip = jax.ShapeDtypeStruct((1, 32, 128, 128, 3), "uint8")

    def loss(params, clip):
        return vivit.forward(params, clip, config, dtype="bfloat16", remat=remat, attention=PALLAS).sum()

    with jax.set_mesh(mesh_of(chip)):
        traced = jax.make_jaxpr(jax.grad(loss))(params, clip)
    called, again = Counter(kernels_used(traced.jaxpr)), int(remat == "lean")
    together = int(chip == "v5e" and remat == "fast")  # the end of a layer: all of its weights fit in VMEM
    assert called["residual_dense_mlp"] == together
    assert called["norm_dense"] == 2 - together + again  # for attention and MLP
    assert called["residual_dense"] == 2 - 2 * together + again
    assert called["flash_forward"] == 1
    assert called["mlp_vjp"] == 1


@pytest.mark.parametrize("chip", mostly_thorough(CHIPS, "v5e"))
def test_a_forward_reads_its_weights_in_place_and_copies_no_tokens(chip):
    """Of all layers at once, or of one, nothing but kernels makes the MLP's weights."""
    c, layers = 128, 3
    config = replace(named("vivit-b/16x2-fe"), channels=c, heads=2, hidden=3 * c, layers=layers, temporal_layers=1)
    params, sharding = abstract(config, chip)
    clip = jax.ShapeDtypeStruct((1, 16, 196, 1536), "uint8", sharding=sharding)
    with jax.set_mesh(mesh_of(chip)):
        forward = jax.jit(partial(vivit.forward, config=config, dtype="bfloat16", attention=PALLAS))
        text = forward.lower(params, clip).compile().as_text()
    made = re.findall(rf"= (?:f32|bf16)\[(?:{layers},|1,)?(?:{c},{3 * c}|{3 * c},{c})\]\S* ([a-z\-]+)\(", text)
    assert "tpu_custom_call" in text
    assert "parameter" in made
    assert {*made} <= {"custom-call", "get-tuple-element", "parameter", "bitcast", "copy-start", "copy-done"}  # to VMEM
    copied = re.findall(r"= f32\[(?:1,)*16,197,128\]\S* (copy)\(", text)
    assert len(copied) <= 1  # into the layout of the kernels, before the loop


@pytest.mark.parametrize("chip", mostly_thorough(CHIPS, "v3"))
def test_kernels_read_and_write_the_stacks_of_a_step_in_place(chip):
    """No instruction but the loops and kernels makes a stack of tokens [layers ...], and none takes a layer out."""
    c, layers = 128, 3
    config = replace(named("vivit-b/16x2-fe"), channels=c, heads=2, hidden=2 * c, layers=layers, temporal_layers=0)
    params, sharding = abstract(config, chip)
    clip = jax.ShapeDtypeStruct((1, 32, 224, 224, 3), "uint8", sharding=sharding)

    def loss(params, clip):
        return vivit.forward(params, clip, config, dtype="bfloat16", remat="fast", attention=PALLAS).sum()

    with jax.set_mesh(mesh_of(chip)):
        text = jax.jit(jax.grad(loss)).lower(params, clip).compile().as_text()
    made = {*re.findall(rf"= (?:f32|bf16)\[{layers},(?:1,)?16,197,\d+\]\S* ([a-z\-]+)\(", text)}
    assert "custom-call" in made
    assert made <= {"custom-call", "get-tuple-element", "parameter", "bitcast"}
    assert not re.findall(r"%(?:dynamic-slice|copy)[\w.\-]* = (?:f32|bf16)\[(?:1,)*16,197,\d+\]\S* fusion\(", text)


def test_a_core_is_split_over_the_chips_of_a_slice_without_communication():
    mesh = mesh_of("v3", 4)
    rows = PartitionSpec("b", None, None, None)
    core = jax.shard_map(partial(kernels.spatial, heads=HEADS), mesh=mesh, in_specs=rows, out_specs=rows)
    with jax.set_mesh(mesh):
        qkv = jax.ShapeDtypeStruct((4, 2, 196, 3 * C), "float32", sharding=NamedSharding(mesh, rows))
        text = jax.jit(core).lower(qkv).compile().as_text()
    assert "tpu_custom_call" in text
    assert not re.search(r"all-(reduce|gather|to-all)|collective-permute", text)


@pytest.mark.parametrize("suffix", mostly_thorough(["", "-fe", "-fsa", "-fdp"], "", "-fsa"))
def test_every_model_is_exported_for_a_tpu_from_this_host(suffix):
    config = named("vivit-b/16x2" + suffix)
    params = convert(shapes(config), lambda _, leaf: jax.ShapeDtypeStruct(leaf.shape, "float32"))
    clip = jax.ShapeDtypeStruct((1, 32, 224, 224, 3), "uint8")

    def lowered(platform, attention):
        forward = jax.jit(partial(vivit.forward, config=config, dtype="bfloat16", attention=attention))
        return jax.export.export(forward, platforms=[platform])(params, clip).mlir_module()

    assert "tpu_custom_call" in lowered("tpu", PALLAS)
    assert "tpu_custom_call" not in lowered("tpu", "xla")
    assert "tpu_custom_call" not in lowered("cpu", "auto")


@pytest.mark.parametrize(
    ("model", "remat"),
    [
        ("spatio_temporal", "none"),
        ("spatio_temporal", "fast"),
        ("factorised_self_attention", "lean"),
        pytest.param("factorised_encoder", "fast", marks=pytest.mark.thorough),
        pytest.param("factorised_dot_product", "fast", marks=pytest.mark.thorough),
    ],
)
def test_the_models_are_the_same_through_the_kernels_in_the_interpreter(model, remat):
    config = replace(small(model), layers=2, temporal_layers=1)
    params, clips = jax.tree.map(jnp.asarray, random_params(config, 1)), jnp.asarray(video(config, 1))

    @partial(jax.jit, static_argnames=("attention", "remat"), compiler_options=QUICKLY)
    def both(params, attention, remat):
        def loss(params):
            options = {"rng": jax.random.key(3), "attention_dropout": 0.3}
            if model != "spatio_temporal":  # with none of these the end of a layer is one kernel
                options |= {"dropout": 0.1, "stochastic_depth": 0.2}
            options |= {"attention": attention, "remat": remat, "frames_valid": np.array([3, 6])}
            logits = vivit.forward(params, clips, config, **options)
            return jnp.square(logits).sum(), logits

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, logits), gradients = both(params, "pallas", remat)
    (_, expected), expected_gradients = both(params, "xla", "none")
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected_gradients), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * max(1.0, float(jnp.abs(other).max())))


@pytest.mark.fast
@pytest.mark.parametrize(("unroll", "together", "apart"), [(False, 1, 0), (True, 0, 2)])
def test_the_interpreter_has_one_kernel_for_the_end_of_a_layer_unless_layers_are_unrolled(unroll, together, apart):
    config = small("spatio_temporal", layers=3)
    forward = partial(vivit.forward, config=config, attention="pallas", unroll=unroll)
    called = Counter(kernels_used(jax.make_jaxpr(forward)(random_params(config, 1), video(config, 1)).jaxpr))
    assert (called["residual_dense_mlp"], called["residual_dense"]) == (together, apart)


@pytest.mark.fast
def test_the_interpreter_has_an_op_of_its_own_for_all_but_the_embedding_and_the_last_norm():
    same = [name for name in XLA._fields if getattr(INTERPRETED, name) is getattr(XLA, name)]
    assert same == ["embed", "layer_norm", "multiple"]


@pytest.mark.fast
@pytest.mark.parametrize("rates", [{}, {"dropout": 0.1, "stochastic_depth": 0.2}])
@pytest.mark.parametrize(
    ("model", "remat", "kept"),  # arrays of a layer: wide as the tokens, as query, key and value together; 1/σ
    [
        ("spatio_temporal", "fast", (3, 1, 1)),
        ("spatio_temporal", "lean", (1, 0, 0)),
        ("factorised_self_attention", "fast", (5, 2, 2)),
        ("factorised_self_attention", "lean", (1, 0, 0)),
        ("factorised_dot_product", "fast", (3, 1, 1)),
        ("factorised_dot_product", "lean", (1, 0, 0)),
    ],
)
def test_a_step_keeps_what_its_kernels_need_and_nothing_twice(model, remat, kept, rates):
    config = small(model, layers=5, channels=256, heads=4, temporal_heads=4, hidden=640)
    params, clips = jax.tree.map(jnp.asarray, random_params(config, 1)), jnp.asarray(video(config, 1))

    def loss(params):
        options = {"rng": jax.random.key(3), "attention": "pallas", "remat": remat, **rates}
        return vivit.forward(params, clips, config, **options).sum()

    leaves = jax.tree.leaves(jax.eval_shape(lambda params: jax.vjp(loss, params)[1], params))
    stacks = [leaf.shape for leaf in leaves if leaf.ndim > 3 and len(leaf) == config.layers]
    widths = [shape[-1] for shape in stacks]
    assert tuple(map(widths.count, (config.channels, 3 * config.channels, LANES))) == kept
    assert len(widths) == sum(kept)


@pytest.mark.thorough
@pytest.mark.parametrize("model", MODELS)
def test_what_kernels_keep_in_place_gives_the_same_bits_as_keeping_everything(model):
    """Heads fill whole windows, so that nothing is padded. Model 1 has 547 tokens, which flash.py takes."""
    config = small(model, layers=2, temporal_layers=1, channels=256, heads=4, temporal_heads=4)
    if model == "spatio_temporal":
        config = replace(config, height=42, width=91)
    params, clips = jax.tree.map(jnp.asarray, random_params(config, 1)), jnp.asarray(video(config, 1))

    @partial(jax.jit, static_argnames="remat", compiler_options=QUICKLY)
    def gradient(params, remat):
        def loss(params):
            return jnp.square(vivit.forward(params, clips, config, attention="pallas", remat=remat)).sum()

        return jax.grad(loss)(params)

    expected = jax.tree.leaves(gradient(params, "none"))
    for remat in ("fast", "lean"):
        for one, other in zip(jax.tree.leaves(gradient(params, remat)), expected, strict=True):
            np.testing.assert_array_equal(one, other)
