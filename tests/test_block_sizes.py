"""Block sizes of the attention kernels: the search, the table that it writes, and what the kernels read of it."""

import json

import jax
import jax.numpy as jnp
import pytest
from cores import Problem, assert_accurate
from strategies import CORES

from bench import tune
from bench.pallas_calls import calls
from vivit.kernels import attention as kernels
from vivit.kernels import block_sizes, chip
from vivit.kernels.block_sizes import BlockSizes, Shape, parsed, written

SHAPE = Shape("v5e", "joint", (1, 600), 128, 2, "bfloat16")
ROW = SHAPE._asdict() | {"sizes": {"queries": 64}}


@pytest.fixture
def table(monkeypatch):
    """Rows that the kernels take for their table, on a chip that is SHAPE's."""
    rows = {}
    monkeypatch.setattr(block_sizes, "table", lambda: rows)
    monkeypatch.setattr(chip, "name", lambda: SHAPE.chip)
    return rows


def steps(core, tokens, operands, channels=SHAPE.channels, heads=SHAPE.heads, dtype=SHAPE.dtype, **options):
    """The steps of the grids of a core's kernels, forward and backward."""

    def both(qkv):
        function = getattr(kernels, core)
        return jax.vjp(lambda qkv: function(qkv, heads, operands=operands, **options), qkv)[1](qkv[..., :channels])

    qkv = jax.ShapeDtypeStruct((*tokens, 3 * channels), dtype)
    return [call.steps for call in calls(jax.make_jaxpr(both)(qkv).jaxpr)]


@pytest.mark.fast
def test_the_committed_table_is_whole():
    rows = block_sizes.table()
    assert written(rows) == block_sizes.TABLE.read_text("utf-8")
    assert all(shape.core in CORES for shape in rows)


@pytest.mark.fast
def test_a_shape_in_the_table_gets_its_row_and_another_the_rule(table):
    usual, other = steps("joint", (1, 600), "bfloat16"), steps("joint", (1, 601), "bfloat16")
    table[SHAPE] = BlockSizes(queries=304, queries_backward=64)
    assert steps("joint", (1, 600), "bfloat16") == [2, 10] != usual
    assert steps("joint", (3, 600), "bfloat16") == [6, 30]  # whatever the batch
    assert steps("joint", (1, 600), "bfloat16", block_sizes=BlockSizes()) == usual
    assert steps("joint", (1, 601), "bfloat16") == other
    assert steps("joint", (1, 600), "float32") == usual
    assert steps("joint", (1, 600), "bfloat16", precision="highest")[0] == usual[0]
    assert steps("joint", (1, 600), "bfloat16", mask=jnp.ones((1, 600), bool)) == usual


@pytest.mark.fast
@pytest.mark.parametrize("core", ["spatial", "temporal", "factorised_dot_product"])
def test_every_core_has_rows_of_its_own(core, table):
    usual = steps(core, (1, 3, 50), "bfloat16")
    table[SHAPE._replace(core=core, tokens=(3, 50))] = BlockSizes(positions=8, longest=16, queries=16)
    assert steps(core, (1, 3, 50), "bfloat16") != usual


@pytest.mark.fast
@pytest.mark.parametrize("core", ["spatial", "temporal"])
@pytest.mark.parametrize(("rows", "forward", "backward"), [(304, 1, 2), (400, 2, 6), (448, 3, 6)])
def test_a_step_takes_as_many_windows_of_heads_as_vmem_holds(core, rows, forward, backward):
    # of 16 MiB; 400 rows in float32: scores of two heads take 4 · 2 · 2 · 400² · 4 bytes, 10.2 MB, and a window of 128
    # channels in query, key, value and result 4 · 2 · 400 · 128 · 4, 1.6 MB: 3 of 6 windows are left, so two steps
    tokens = (1, 1, rows) if core == "spatial" else (1, rows // 8, 8)
    assert steps(core, tokens, "float32", channels=768, heads=12, dtype="float32") == [forward, backward]


@pytest.mark.fast
@pytest.mark.parametrize(
    ("core", "tokens", "expected"),
    [
        ("spatial", (1, 1, 456), [3 * 6, 4 * 6]),  # blocks of 224 queries forward, of 128 backward, in each window
        ("temporal", (1, 57, 8), [8, 8]),  # as over space, one position a step
        ("factorised_dot_product", (1, 1, 456), [4, 3, 3, 4]),  # blocks of 128 positions; half of the channels fit
    ],
)
def test_a_sequence_whose_gradient_takes_half_of_vmem_is_cut(core, tokens, expected):
    # of 16 MiB: 2 · 456 · 3 · 768 · 4 bytes
    assert steps(core, tokens, "float32", channels=768, heads=12, dtype="float32") == expected


@pytest.mark.fast
def test_512_tokens_are_taken_whole():
    assert steps("spatial", (1, 1, 512), "bfloat16") == [1, 1]
    assert steps("spatial", (1, 1, 513), "bfloat16") == [3, 5]  # blocks of queries, as above


@pytest.mark.fast
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROW, ROW], "its shape must have no other"),
        ([[*ROW.values()]], "it must have chip, core, tokens, channels, heads, dtype, sizes"),
        ([ROW | {"more": 1}], "it must have chip"),
        ([ROW | {"tokens": [600]}], "it must have chip"),
        ([ROW | {"tokens": 600}], "it must have chip"),
        ([ROW | {"heads": 0}], "it must have chip"),
        ([ROW | {"dtype": 4}], "it must have chip"),
        ([ROW | {"sizes": {"querys": 64}}], "and known sizes"),
        ([ROW | {"sizes": {"queries": 64.0}}], "and known sizes"),
        ([ROW | {"sizes": [64]}], "and known sizes"),
    ],
)
def test_a_row_that_is_none_is_refused_in_one_line(rows, message):
    with pytest.raises(ValueError, match=message) as raised:
        parsed(json.dumps(rows))
    assert "\n" not in str(raised.value)


@pytest.mark.fast
def test_a_table_is_read_as_it_was_written():
    rows = {SHAPE: BlockSizes(queries=64), SHAPE._replace(chip="v3"): BlockSizes(windows=2, keys=None)}
    rows[SHAPE._replace(core="spatial")] = BlockSizes(*range(1, 1 + len(BlockSizes._fields)))  # a row with every size
    assert parsed(written(rows)) == rows


@pytest.mark.fast
def test_the_search_keeps_the_best_of_each_field():
    def cost(sizes):
        if sizes.queries == 448:
            return None  # does not compile
        return abs(sizes.queries - 300) + abs((sizes.keys_together or 0) - 500)

    candidates = {"queries": (128, 256, 320, 448), "keys_together": (400, 448)}
    found = tune.search(candidates, cost)
    assert found.sizes == BlockSizes(queries=320, keys_together=448)
    assert (found.usual, found.cost) == (76 + 500, 20 + 52)
    with pytest.raises(ValueError, match="the usual block sizes do not compile"):
        tune.search(candidates, lambda _: None)


@pytest.mark.fast
def test_the_search_by_time_is_of_what_compiles(monkeypatch):
    monkeypatch.setattr(tune, "CANDIDATES", {"joint": {"queries": (8, 64)}})
    found = tune.timed(tune.Job("joint", (1, 1, 40), 64, 1, "float32"), runs=1, interpret=True)
    assert found.cost <= found.usual
    assert found.sizes.queries in (224, 8, 64)


@pytest.mark.fast
def test_the_table_that_a_search_writes_can_be_read(monkeypatch, tmp_path):
    path = tmp_path / "table.json"
    path.write_text(written({SHAPE: BlockSizes(queries=64)}))
    sizes = BlockSizes(queries=264)
    monkeypatch.setattr(tune, "_scheduled", lambda chip, jobs: [tune.Found(2.0, sizes, 1.0) for _ in jobs])
    tune.main(["--chip", "v3", "--workload", "joint", "--shape", "1,1,600,128,2", "-o", str(path)])
    found = SHAPE._replace(chip="v3", dtype="float32")
    assert parsed(path.read_text()) == {SHAPE: BlockSizes(queries=64), found: sizes}


@pytest.mark.parametrize(
    "sizes", [dict(queries_backward=48, keys_together_backward=40), dict(keys_backward=80, keys_together=64)]
)
def test_results_are_as_accurate_whatever_the_block_sizes(sizes):
    problem = Problem((1, 1, 137, 2, 64), masked=0.3, dropped=0.25)
    sizes = BlockSizes(longest=8, **sizes)
    for dtype in ("float32", "bfloat16"):
        assert_accurate(kernels, "joint", dtype, *problem.drawn("joint"), interpret=True, block_sizes=sizes)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--shape", "1,1,600,128"], "the shape is 1,1,600,128: it must be B,T,S,C,H"),
        (["--shape", "1,1,600,128,2"], "--shape needs one --workload"),
    ],
)
def test_a_bad_option_is_one_line_and_exit_2(options, fault, capsys):
    with pytest.raises(SystemExit) as raised:
        tune.main(options)
    assert raised.value.code == 2
    assert fault in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.fast
def test_without_a_chip_a_tpu_must_be_attached(tmp_path):
    with pytest.raises(ValueError, match="no TPU is attached: name chips with --chip"):
        tune.main(["--workload", "joint", "-o", str(tmp_path / "table.json")])
