"""bench schedule: reading the compiler's dump, checked on a kernel of known length."""

import json
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from strategies import small

from bench import bundles, hlo, model_schedule, pallas_calls, schedule, schedule_table
from bench.chips import CHIPS, environment
from bench.workloads import WORKLOADS, Workload
from vivit.kernels import stacks

ROOT = Path(__file__).parent.parent

BUNDLES = """
= control target key start
LH: loop header

     0   :  { %1 = vnop  ;;  %s0 = smov 0 }
   0x1   :  { %2 = vdelay 5 } /* Start region 1 */
   0x2 LB: > { %3 = vmatmul.f32.gmra.mxu0 %v1_v0  ;;  %4 = vmatmul.f32.gmra.mxu1 %v2_v1 }
   0x3   : > { %5 = vmatmul.bf16.gmra.mxu0 %v3_v0  ;;  %6 = vdelay 2 }
   0x4   : > { %7 = vpow2.f32 %v4  ;;  %8 = vadd.f32 %v5, %v6 }
   0x5   :  { %9 = vnop }
""".splitlines()
UTILISATION = """
== CAPACTIY:
MXU, VALU, EUP
  2    4    1
== UTILIZATION:
0 0 0
0 0 0
2 0 0
1 0 0
0 1 1
0 0 0
""".splitlines()
PROGRAM = """
%body.1 (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %fusion.1 = f32[8]{0} fusion(%x), kind=kLoop, backend_config={"estimated_cycles":"100"}
  ROOT %my_kernel.3 = f32[8,128]{1,0} custom-call(%y), custom_call_target="tpu_custom_call", \
operand_layout_constraints={s32[]{:T(128)}, bf16[16,128]{1,0}}, \
backend_config={"used_scoped_memory_configs":[{"memory_space":"1","offset":"0","size":"4096"}]}
}

%condition.1 (p: (s32[], f32[8])) -> pred[] {
  %limit = s32[]{:T(256)} constant(7)
  ROOT %lt = pred[]{:T(1024)} compare(%i, %limit), direction=LT
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %copy.1 = f32[8]{0} copy(%a), backend_config={"estimated_cycles":"30"}
  %while.1 = (s32[], f32[8]) while(%t), condition=%condition.1, body=%body.1
}
"""


def test_the_bundles_of_a_step_count_once_a_step_and_delays_count():
    program = bundles.parse(BUNDLES, UTILISATION)
    assert (program.once.cycles, program.step.cycles) == (1 + 6 + 1, 1 + 3 + 1)
    assert program.cycles(steps=10) == 8 + 10 * 5


def test_rows_of_pushes_are_counted_by_matrix_unit_and_dtype():
    program = bundles.parse(BUNDLES, UTILISATION)
    assert program.step.rows == {"0": 8 + 16, "1": 8}
    assert (program.rows(steps=3), program.all_rows(steps=3)) == (3 * 24, 3 * 32)


def test_units_are_busy_in_proportion_to_their_slots():
    assert bundles.parse(BUNDLES, UTILISATION).busy(steps=4) == {"MXU": 4 * 3 / 2, "VALU": 4 / 4, "EUP": 4}


def test_a_loop_inside_a_grid_step_counts_as_often_as_it_runs():
    two_loops = [
        *BUNDLES[:-1],
        "   0x5 LB: >> { %10 = vnop }",
        "   0x6   : >> { %11 = vpow2.f32 %v4  ;;  %p0 = scmp.ge.s32.totalorder %s1, 7 /* loop exit test */ }",
        "   0x7 LB: >> { %12 = vnop  ;;  %p1 = scmp.ge.s32.totalorder %s2, 3 /* loop exit test */ }",
        "   0x8   : > { %13 = vnop  ;;  %p2 = scmp.ge.s32.totalorder %s3, 12 /* loop exit test */ }",
        "   0x9   :  { %14 = vnop }",
    ]
    program = bundles.parse(two_loops, [*UTILISATION[:-1], "0 0 0", "0 0 1", "0 0 0", "0 0 0", "0 0 0"])
    assert program.cycles(steps=10) == 8 + 10 * (5 + 7 * 2 + 3 * 1 + 1)
    assert program.busy(steps=10)["EUP"] == 10 * (1 + 7)
    assert program.step.trips == 12


def test_a_loop_of_unknown_length_inside_a_grid_step_is_refused_unless_it_is_short(monkeypatch):
    monkeypatch.setattr(bundles, "REMAINDER", 0)
    inner = [*BUNDLES, "   0x6   : >> { %10 = vnop }"]
    with pytest.raises(ValueError, match="a loop inside a grid step whose length is not in the dump"):
        bundles.parse(inner, [*UTILISATION, "0 0 0"])


@pytest.mark.parametrize(("text", "table"), [([], UTILISATION), (BUNDLES, []), (BUNDLES, UTILISATION[:-4])])
def test_a_dump_of_unknown_format_is_refused(text, table):
    with pytest.raises(ValueError, match="format"):
        bundles.parse(text, table)


def test_a_loop_counts_as_often_as_it_runs():
    cost = hlo.cost(PROGRAM)
    assert cost.estimates == {"copy": 30, "other": 7 * 100}
    assert cost.kernels == {hlo.Kernel("my_kernel.3", ((), (16, 128)), ((8, 128),), 4096): 7}


def test_an_operation_without_an_estimate_is_counted_separately():
    cost = hlo.cost(PROGRAM.replace('"30"', str(2**60).join('""')))
    assert (cost.estimates, cost.unknown) == ({"other": 7 * 100}, 1)


def test_a_loop_of_unknown_length_is_refused():
    with pytest.raises(ValueError, match="length of a loop"):
        hlo.cost(PROGRAM.replace("constant(7)", "parameter(0)"))


def test_blocks_are_moved_when_their_index_changes():
    def add(left, right):
        def kernel(left_ref, right_ref, out_ref):
            out_ref[...] = left_ref[:, :100] + right_ref[:, :100]

        return pl.pallas_call(
            kernel,
            name="add",
            grid=(3, 5),
            in_specs=[
                pl.BlockSpec((8, 128), lambda i, j: (i, j)),
                pl.BlockSpec((8, 128), lambda i, j: (0, i)),
            ],
            out_specs=pl.BlockSpec((8, 100), lambda i, j: (i, j)),
            out_shape=jax.ShapeDtypeStruct((24, 500), jnp.float32),
        )(left, right)

    shapes = jax.ShapeDtypeStruct((24, 640), jnp.float32), jax.ShapeDtypeStruct((8, 384), jnp.float32)
    (call,) = pallas_calls.calls(jax.make_jaxpr(jax.jit(add))(*shapes).jaxpr)
    assert (call.name, call.steps, call.exact, call.results) == ("add", 15, True, ((24, 500),))
    assert call.operands == ((24, 640), (8, 384))
    assert call.bytes == (15 + 3 + 15) * 8 * 128 * 4  # a block of 100 lanes is moved as 128


def test_of_a_stack_one_layer_is_moved():
    layers, layer = jax.ShapeDtypeStruct((12, 24, 256), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32)

    def double(stack, kept, layer):
        def kernel(in_ref, out_ref):
            out_ref[...] = 2 * in_ref[...]

        block = pl.BlockSpec((8, 256), lambda i: (i, 0))
        tape = stacks.Tape([kept], layer)
        shape = jax.ShapeDtypeStruct((24, 256), jnp.float32)
        stacks.pallas_call(
            kernel, name="double", grid=(3,), in_specs=[block], out_specs=block, out_shape=shape, tape=tape
        )(stacks.Slice(stack, layer))
        return tape.stacks

    (call,) = pallas_calls.calls(jax.make_jaxpr(double)(layers, layers, layer).jaxpr)
    assert (call.steps, call.exact) == (3, True)
    assert call.bytes == 2 * 24 * 256 * 4


def test_the_multiply_adds_of_a_workload_are_those_of_its_products():
    b, t, s, c = 2, 3, 5, 8
    pairs = {"spatial": b * t * s**2, "temporal": b * s * t**2}
    for variant, count in pairs.items():
        assert Workload(variant=variant, tokens=(b, t, s), channels=c, heads=2).core_multiply_adds == 2 * count * c
    both = Workload(variant="factorised_dot_product", tokens=(b, t, s), channels=c, heads=2)
    assert both.core_multiply_adds == sum(pairs.values()) * c
    joint = Workload(variant="joint", tokens=(b, t * s), channels=c, heads=2)
    assert joint.core_multiply_adds == 2 * b * (t * s) ** 2 * c


def test_the_names_of_the_schedule_are_those_of_the_workloads():
    assert tuple(WORKLOADS) == schedule.WORKLOADS


@pytest.mark.parametrize("implementation", model_schedule.IMPLEMENTATIONS)
def test_every_row_of_the_models_traces_with_the_shapes_of_its_arguments(implementation):
    config = small("factorised_encoder", layers=2)
    compiler = SimpleNamespace(abstract=jax.ShapeDtypeStruct)
    for direction in model_schedule.directions(implementation, schedule.DIRECTIONS):
        function, arguments = model_schedule.program(compiler, "bfloat16", config, 2, implementation, direction)
        result = jax.eval_shape(function, *arguments)
        if direction == "forward":
            assert result.shape == (2, sum(config.classes))
            continue
        changed = result[0] if implementation.startswith("update") else result  # the state, or the gradient
        assert jax.tree.map(lambda leaf: leaf.shape, changed) == jax.tree.map(lambda leaf: leaf.shape, arguments[0])


def test_what_users_run_is_scheduled_once_in_each_direction():
    options = SimpleNamespace(forward=False, model=["2"], chip=["v3"], only=["scanned", "update"], layout=None)
    jobs = [(job.implementation, job.direction) for job in schedule._jobs(options)]
    backward = ("scanned none", "scanned fast", "scanned lean", "scanned dropout", "update sgd", "update adamw")
    assert jobs == [("scanned", "forward"), *((name, "forward+backward") for name in backward)]


def test_a_model_s_row_has_its_part_of_the_matrix_units_and_its_memory():
    row = {"kernel_cycles": 3e8, "kinds": {"copy": 1e7}, "unknown": 0, "temporary_bytes": 3.2e9, "held_bytes": 9e8}
    job = schedule.Job("v3", "bfloat16", "-fe", "scanned lean", "forward+backward")
    (table,) = schedule_table.model_tables({job: {"cycles": 4.166e8, **row}})
    cells = dict(zip(table.columns, table.rows[0], strict=True))
    assert cells["MXU"] == "50%"  # of 208.3 Mcycles: three times the forward's 284 G multiply-adds a clip
    assert (cells["temp GB"], cells["held GB"], cells["of GB"], cells["copies"]) == ("3.2", "0.9", "16", "10.0")


@pytest.mark.skipif(find_spec("libtpu") is None, reason="libtpu is not installed")
@pytest.mark.parametrize("chip", CHIPS)
def test_a_kernel_of_known_length_is_parsed_correctly(chip, tmp_path):
    program = (sys.executable, "-m", "bench", "schedule", "--worker", chip, str(tmp_path))
    done = subprocess.run(
        program, input="[]", env=environment(tmp_path), capture_output=True, text=True, check=False, cwd=ROOT
    )
    (message,) = map(json.loads, done.stdout.splitlines())
    assert "fault" not in message, message
    assert f"{4096 * 768 * 768} multiply-adds (exact)" in message["check"]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--chip", "v9"], "invalid choice: 'v9'"),
        (["--chi", "v3"], "unrecognized arguments: --chi v3; did you mean '--chip'?"),
        (["--jobs", "0"], "--jobs is 0: it must be at least 1"),
        (["--only", "nothing"], "no implementation's name contains nothing"),
    ],
)
def test_a_bad_option_is_one_line_and_exit_2(options, fault, capsys):
    with pytest.raises(SystemExit) as raised:
        schedule.main(options)
    assert raised.value.code == 2
    assert fault in capsys.readouterr().err.splitlines()[-1]


def test_the_clock_and_the_matrix_units_give_the_public_peak():
    peaks = {"v3": 123 / 2, "v4": 275 / 2, "v5e": 197, "v6e": 918}  # TFLOP/s of a core in bfloat16
    for name, peak in peaks.items():
        chip = CHIPS[name]
        assert math.isclose(2 * chip.multiply_adds_per_cycle * chip.gigahertz / 1e3, peak, rel_tol=0.01)
