"""Wrong, truncated and malicious files: one clear error, bounded memory, no partial load and no partial write."""

import contextlib
import io
import json
import os
import pickle
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import zipfile
from dataclasses import replace

import msgpack
import numpy as np
import pytest
from checkpoints import flax_bytes, hugging_face_folder, model, nested, said, same, tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from strategies import SMALL, random_params

import vivit
from vivit.files import json_files
from vivit.reference.config import named
from vivit.reference.params import leaves

TINY = named("vivit-tiny/8x2")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """One checkpoint of every format, with the file that holds its weights and what load must be told."""
    folder = tmp_path_factory.mktemp("sources")
    vivit.save(model(TINY), folder / "ours")
    hugging_face_folder(folder / "port", TINY)
    np.savez_compressed(folder / "tree.npz", **tree(TINY))
    (folder / "flax").write_bytes(flax_bytes({"params": nested(tree(TINY))}, chunks=True))
    return {
        "ours": (folder / "ours", "model.safetensors", {}),
        "port": (folder / "port", "model.safetensors", {}),
        "tree.npz": (folder / "tree.npz", "", said(TINY)),
        "flax": (folder / "flax", "", said(TINY)),
    }


def copied(source, target):
    """A copy of a checkpoint, and the file of its weights."""
    path, weights, hints = source
    (shutil.copytree if path.is_dir() else shutil.copy)(path, target)
    return target, target / weights if weights else target, hints


@pytest.mark.parametrize("name", ["ours", "port", "tree.npz", "flax"])
def test_a_file_cut_anywhere_is_an_error(name, sources, tmp_path):
    path, weights, hints = copied(sources[name], tmp_path / name)
    whole = weights.read_bytes()
    for size in (0, 1, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        weights.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=str(tmp_path)):
            vivit.load(path, **hints)


@pytest.mark.fast
@pytest.mark.parametrize("name", ["ours", "port", "tree.npz", "flax"])
@given(places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_changed_bytes_load_or_give_a_one_line_error(name, places, sources, tmp_path_factory):
    path, weights, hints = copied(sources[name], tmp_path_factory.mktemp("changed") / name)
    data = bytearray(weights.read_bytes())
    for place, value in places:
        head = place < 0.5  # half of the changes among the names and sizes at the beginning
        data[int(place * 2 * min(4000, len(data) - 1)) if head else int(place * (len(data) - 1))] = value
    weights.write_bytes(data)
    with contextlib.suppress(ValueError):
        loaded = vivit.load(path, **hints)
        assert all(np.isfinite(leaf).all() for _, leaf in leaves(loaded.params))


def test_every_fault_of_every_leaf_is_listed_in_one_error(tmp_path):
    arrays = tree(TINY)
    del arrays["Transformer/encoderblock_1/LayerNorm_0/scale"]
    arrays["Transformer/encoderblock_9000/extra"] = np.zeros(3, np.float32)
    arrays["Transformer/encoder_norm/bias"] = np.zeros(47, np.float32)
    arrays["cls"] = arrays["cls"].astype(np.int32)
    arrays["embedding/bias"][3] = np.nan
    arrays["output_projection/bias"][0] = -np.inf
    arrays["Transformer/posembed_input/pos_embedding"] = np.full((1, 65, 48), 1e39)  # finite in float64 only
    np.savez(tmp_path / "faulty", **arrays)
    with pytest.raises(ValueError, match="does not fit the config") as caught:
        vivit.load(tmp_path / "faulty.npz", TINY)
    text = str(caught.value)
    assert "\n" not in text
    for fault in (
        "Transformer/encoderblock_1/LayerNorm_0/scale is missing",
        "Transformer/encoderblock_9000/extra is superfluous",
        "Transformer/encoder_norm/bias has shape (47,), it must be (48,)",
        "cls has dtype int32, it must be a float type",
        "embedding/bias has NaN or infinity",
        "output_projection/bias has NaN or infinity",
        "pos_embedding has NaN or infinity",
    ):
        assert fault in text


@pytest.mark.parametrize("name", ["ours", "port"])
def test_a_folder_with_a_wrong_leaf_names_it_as_the_file_does(name, sources, tmp_path):
    path, weights, _ = copied(sources[name], tmp_path / name)
    arrays = load_file(weights)
    first = "encoder/norm/bias" if name == "ours" else "vivit.layernorm.bias"
    arrays[first] = np.full(48, np.inf, np.float32)
    arrays["another"] = np.zeros(2, np.float32)
    save_file(arrays, weights)
    with pytest.raises(ValueError, match=f"another is superfluous; {first} has NaN or infinity"):
        vivit.load(path)


class Trap:
    def __reduce__(self):
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize("kind", ["pickle", "torch zip", "object npz", "folder", "hdf5", "text"])
def test_nothing_is_unpickled_and_the_error_says_how_to_convert(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Trap()))
    elif kind == "torch zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Trap()))
    elif kind == "object npz":
        np.savez(tmp_path / "x", a=np.array([Trap()], object))
        path = tmp_path / "x.npz"
    elif kind == "folder":
        path.mkdir()
        (path / "config.json").write_text('{"model_type": "vivit"}')
        (path / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    elif kind == "hdf5":
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    else:
        path.write_text("hello")
    wanted = "it must be a folder with config.json" if kind in ("hdf5", "text") else "safetensors.torch.save_file"
    with pytest.raises(ValueError, match=wanted):
        vivit.load(path)
    assert not (tmp_path / "unpickled").exists()


def test_an_index_names_files_of_its_own_folder_only(tmp_path):
    folder = hugging_face_folder(tmp_path / "port", TINY)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    for name in ("../outside.safetensors", str(tmp_path / "outside.safetensors"), "..", "a/b.safetensors", "a\\b", ""):
        index = {"weight_map": dict.fromkeys(weights, name)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match="it must be a file of this directory"):
            vivit.load(folder)
    for index, message in (
        ({}, "weight_map is missing"),
        ({"weight_map": {"a": "part.safetensors"}}, "no part.safetensors"),
    ):
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match=message):
            vivit.load(folder)


def bomb(shape):
    """An npz whose one array unpacks to zeros of this shape, without ever holding them."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, dict(descr="<f4", fortran_order=False, shape=shape))
    out = io.BytesIO()
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("embedding/kernel.npy", "w", force_zip64=True) as file,
    ):
        file.write(header.getvalue())
        for _ in range(int(np.prod(shape)) * 4 // 2**20):
            file.write(bytes(2**20))
    return out.getvalue()


LIES = {
    "zip bomb": lambda: bomb((256, 1024, 512)),
    "npy that declares more": lambda: _with_npy(dict(descr="<f4", fortran_order=False, shape=(2**40,))),
    "npy of negative size": lambda: _with_npy(dict(descr="<f4", fortran_order=False, shape=(-4,))),
    "safetensors header beyond the file": lambda: struct.pack("<Q", 2**39) + b"{" + bytes(50),
    "safetensors array beyond the file": lambda: _safetensors(
        {"a": dict(dtype="F32", shape=[2**40], data_offsets=[0, 2**42])}
    ),
    "safetensors overlap": lambda: _safetensors(
        {name: dict(dtype="F32", shape=[2], data_offsets=[0, 8]) for name in "ab"}, bytes(8)
    ),
    "msgpack that declares more": lambda: b"\x81\xa1a\xc9" + struct.pack(">I", 2**32 - 1) + b"\x01" + bytes(50),
    "msgpack map of billions": lambda: b"\xdf" + struct.pack(">I", 2**32 - 1) + bytes(50),
    "msgpack array whose shape lies": lambda: _array((2**40,), "float32", bytes(8)),
    "msgpack array of objects": lambda: _array((1,), "object", bytes(8)),
    "msgpack deeply nested": lambda: b"\x81\xa1a" * 5000 + b"\x80",
}


def _with_npy(header):
    file, out = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("embedding/kernel.npy", file.getvalue() + bytes(64))
    return out.getvalue()


def _safetensors(header, data=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _array(shape, dtype, data):
    packed = msgpack.packb((list(shape), dtype, data), use_bin_type=True)
    return msgpack.packb({"params": {"cls": msgpack.ExtType(1, packed)}})


@pytest.mark.parametrize("lie", LIES)
def test_wrong_declared_sizes_are_rejected_in_bounded_memory(lie, tmp_path):
    path = tmp_path / "lie"
    path.write_bytes(LIES[lie]())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=str(path)) as caught:
        vivit.load(path, TINY)
    assert "\n" not in str(caught.value)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 2**17, f"{grown} KiB more"  # 128 MiB


def test_a_huge_description_is_not_read(tmp_path, monkeypatch):
    folder = tmp_path / "ours"
    vivit.save(model(SMALL), folder)
    monkeypatch.setattr(json_files, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="bytes: it must have at most 10"):
        vivit.load(folder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("version", 2, "config.json: version is 2: it must be 1"),
        ("weights", "../model.safetensors", "it must be model.safetensors or model.next.safetensors"),
        ("config", {"model": "spatio_temporal", "colour": 3}, "config has colour: Config has no such field"),
        ("config", {"frames": 8}, "config.json: config: model is missing: Config requires it"),
        ("config", 7, "config.json: config is 7: it must be a JSON object"),
        ("preprocessing", {"std": [0, 1, 1]}, "they must not be 0"),
        ("labels", [["a", 3]], "labels has 3: every name must be a text"),
    ],
)
def test_a_wrong_description_is_one_line(field, value, message, tmp_path):
    vivit.save(model(TINY), tmp_path / "ours")
    path = tmp_path / "ours" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(ValueError, match=message):
        vivit.load(tmp_path / "ours")


def test_a_wrong_number_of_layers_allocates_no_memory(tmp_path):
    folder = hugging_face_folder(tmp_path / "port", TINY, config={"num_hidden_layers": 10**12})
    with pytest.raises(ValueError, match="num_hidden_layers is 1000000000000: the weights have 3 layers"):
        vivit.load(folder)
    arrays = tree(TINY) | {f"Transformer/encoderblock_{10**12}/LayerNorm_0/scale": np.zeros(48, np.float32)}
    np.savez(tmp_path / "tree", **arrays)
    with pytest.raises(ValueError, match="encoderblock_1000000000000/LayerNorm_0/scale is superfluous"):
        vivit.load(tmp_path / "tree.npz", frames=8)


def test_saving_replaces_a_checkpoint_and_nothing_else(tmp_path):
    folder = tmp_path / "ours"
    for seed in (1, 2, 3):
        vivit.save(model(SMALL, seed), folder)
        assert same(vivit.load(folder).params, random_params(SMALL, seed))
        assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]
    assert os.listdir(tmp_path) == ["ours"]
    (tmp_path / "port").mkdir()
    (tmp_path / "port" / "config.json").write_text('{"model_type": "vivit"}')
    with pytest.raises(ValueError, match=r"holds another program's config\.json"):
        vivit.save(model(SMALL), tmp_path / "port")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is a file: it must be a folder"):
        vivit.save(model(SMALL), tmp_path / "file")
    with pytest.raises(ValueError, match="exists already"):
        vivit.save(model(TINY), folder, to="huggingface")
    broken = model(SMALL)
    broken = replace(broken, params=broken.params._replace(head=broken.params.head._replace(bias=np.full(24, np.nan))))
    with pytest.raises(ValueError, match="params hold NaN or infinity in head/bias"):
        vivit.save(broken, folder)
    assert same(vivit.load(folder).params, random_params(SMALL, 3))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.fast
@pytest.mark.parametrize("links", [True, False])
def test_an_interruption_at_any_step_leaves_the_old_or_the_new_checkpoint(links, tmp_path, monkeypatch):
    """Every change of the file system is made to fail in turn; without hard links as well."""
    folder = tmp_path / "ours"
    steps = ("replace", "link", "unlink", "fsync")
    originals = {name: getattr(os, name) for name in steps}

    def no_link(*args):
        raise OSError("no hard links here")

    class Killed(BaseException):
        pass

    after = set()
    for stop in range(60):
        shutil.rmtree(folder, ignore_errors=True)
        vivit.save(model(SMALL, 1), folder)
        count = 0

        def step(name, *args, **kwargs):
            nonlocal count
            count += 1
            if count > stop:  # killed: nothing happens any more, cleaning up neither  # noqa: B023
                raise Killed
            return (no_link if name == "link" and not links else originals[name])(*args, **kwargs)

        with monkeypatch.context() as patched:
            for name in steps:
                patched.setattr(os, name, lambda *args, name=name, **kwargs: step(name, *args, **kwargs))
            try:
                vivit.save(model(SMALL, 2), folder)
                finished = True
            except Killed:
                finished = False
        found = vivit.load(folder).params
        seed = 2 if same(found, random_params(SMALL, 2)) else 1
        assert same(found, random_params(SMALL, seed))
        after.add(seed)
        vivit.save(model(SMALL, 3), folder)  # and what was left behind does not stand in the way
        assert same(vivit.load(folder).params, random_params(SMALL, 3))
        assert len(os.listdir(folder)) == 2
        if finished:
            break
    else:
        pytest.fail("it was never finished")
    assert after == {1, 2}


def test_killed_at_random_moments_a_checkpoint_is_still_whole(tmp_path):
    folder = tmp_path / "ours"
    code = """
import sys
from checkpoints import model
from strategies import SMALL
import vivit
models = [model(SMALL, seed) for seed in (0, 1)]
print("ready", flush=True)
while True:
    for each in models:
        vivit.save(each, sys.argv[1])
"""
    vivit.save(model(SMALL, 0), folder)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    generator = np.random.default_rng(0)
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, env=environment, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(generator.uniform(0.02, 0.3))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        found = vivit.load(folder).params
        assert same(found, random_params(SMALL, 0)) or same(found, random_params(SMALL, 1))
