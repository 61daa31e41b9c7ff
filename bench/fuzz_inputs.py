"""Invalid checkpoints, run files, tables, labels and flags for fuzz.py, passed to vivit.load or the commands.

A valid run file would start training; the ones here name missing videos, so that the run ends at the first.
"""

import contextlib
import io
import json
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgpack
import numpy as np

import vivit
from bench.fuzz_values import any_text, any_value, wrong_json
from bench.fuzz_videos import damaged
from vivit.audit.variants import random_params
from vivit.checkpoints import flax
from vivit.cli.main import main
from vivit.demo import demo_checkpoint
from vivit.pretrained import Model
from vivit.reference.config import Config, named
from vivit.reference.values import MAX_CHARACTERS

TINY = named("vivit-tiny/8x2")
SAID: dict[str, Any] = dict(frames=8, height=32, width=32)
Case = Callable[[Path, np.random.Generator], list[str] | None]


def prepare(folder: Path) -> None:
    """Valid inputs: a checkpoint of every format, a table, labels, a run file and a video."""
    model = Model(config=TINY, params=random_params(TINY, 0), labels=(tuple("abcde"),))
    vivit.save(model, folder / "ours")
    vivit.save(model, folder / "port", to="huggingface")
    vivit.save(model, folder / "tree.npz", to="npz")
    (folder / "flax").write_bytes(_msgpack(flax.flax_arrays(model)))
    _write_image(folder / "image", model)
    rows = [{"path": f"{name}.mp4", "label": name, "start": 0.5, "end": 2, "split": "test"} for name in "abcde"]
    (folder / "table.json").write_text(json.dumps(rows))
    (folder / "train.csv").write_text("path,label\n" + "".join(f"{name}.mp4,{name}\n" for name in "abcde"))
    (video,) = demo_checkpoint().parent.glob("*.mp4")
    shutil.copy(video, folder / "video.mp4")
    config = {"model": "spatio_temporal", "frames": 8, "height": 32, "width": 32, "tubelet": [2, 8, 8]}
    config |= {"channels": 48, "heads": 4, "hidden": 96, "layers": 1}
    (folder / "model.json").write_text(json.dumps(config))


def ours(folder: Path, generator: np.random.Generator) -> list[str] | None:
    place = _copied(folder / "ours")
    if generator.random() < 0.6:
        _rewrite(place / "config.json", generator)
    else:
        _wrong_safetensors(place / "model.safetensors", generator)
    return _load(place)


def hugging_face(folder: Path, generator: np.random.Generator) -> list[str] | None:
    place = _copied(folder / "port")
    kind = generator.random()
    if kind < 0.3:
        _rewrite(place / "config.json", generator)
    elif kind < 0.6:
        _rewrite(place / "preprocessor_config.json", generator)
    elif kind < 0.75:
        (place / "model.safetensors").rename(place / "part.safetensors")
        names = json.loads(_header((place / "part.safetensors").read_bytes()))
        index = {"weight_map": dict.fromkeys(names.keys() - {"__metadata__"}, "part.safetensors")}
        (place / "model.safetensors.index.json").write_bytes(wrong_json(index, generator))
    else:
        _wrong_safetensors(place / "model.safetensors", generator)
    return _load(place)


def npz(folder: Path, generator: np.random.Generator) -> list[str] | None:
    path = folder / "case.npz"
    if generator.random() < 0.4:
        path.write_bytes(damaged((folder / "tree.npz").read_bytes(), generator))
        return _load(path, **SAID)
    with zipfile.ZipFile(folder / "tree.npz") as source, zipfile.ZipFile(path, "w") as target:
        members = source.infolist()
        chosen = int(generator.integers(len(members)))
        for number, member in enumerate(members):
            data = source.read(member)
            name = member.filename
            if number == chosen:
                data, name = _wrong_npy(data, generator), name if generator.random() < 0.8 else f"{name}{name}"
            if number != chosen or generator.random() < 0.9:
                target.writestr(name, data)
    return _load(path, **SAID)


def message_pack(folder: Path, generator: np.random.Generator) -> list[str] | None:
    path, data = folder / "case.flax", (folder / "flax").read_bytes()
    if generator.random() < 0.4:
        path.write_bytes(damaged(data, generator))
        return _load(path, **SAID)
    tree = msgpack.unpackb(data, raw=False)
    for _ in range(int(generator.integers(1, 4))):
        _change_tree(tree, generator)
    path.write_bytes(_packed(tree))
    said = {} if generator.random() < 0.2 else SAID
    return _load(path, **said)


def image(folder: Path, generator: np.random.Generator) -> list[str] | None:
    place = _copied(folder / "image")
    if generator.random() < 0.6:
        _rewrite(place / "config.json", generator)
    else:
        _wrong_safetensors(place / "model.safetensors", generator)
    return _answered(lambda: vivit.from_image_model(place, _image_config(), keep_head=bool(generator.integers(2))))


def run_files(folder: Path, generator: np.random.Generator) -> list[str] | None:
    run = {"data": str(folder / "train.csv"), "folder": str(folder / "run"), "model": str(folder / "model.json")}
    run |= {"heads": ["label"], "threads": 1, "mesh": [1, 1, 1], "broken": "fail", "learning_rate": 0.1, "steps": 1}
    run |= {"multi_label": False, "save_every": 1, "keep": 1, "batch_size": 1, "crop": 32, "resize": 32, "stride": 1}
    run |= {"freeze": [], "scale_jitter": [1.0, 1.0], "seed": 0, "dtype": "float32", "optimiser": "sgd", "flip": 0.0}
    if generator.random() < 0.3:
        name = ("start", "cache", "image", "recipe", "address", "process", "processes")[int(generator.integers(7))]
        run[name] = str(folder / name)
    path = folder / "run.json"
    if generator.random() < 0.15:
        _rewrite(folder / "model.json", generator, folder / "wrong.json")
        run["model"] = str(folder / "wrong.json")
        path.write_text(json.dumps(run))
    else:
        path.write_bytes(wrong_json(run, generator))
    shutil.rmtree(folder / "run", ignore_errors=True)
    return ["train", str(path)]


def tables(folder: Path, generator: np.random.Generator) -> list[str] | None:
    rows: list[dict[str, Any]] = json.loads((folder / "table.json").read_text())
    command = ["evaluate", "", "--checkpoint", str(folder / "ours"), "--threads", "1", "--batch", "1", "--views", "1x1"]
    kind = generator.random()
    if kind < 0.2:
        path = folder / ("labels.json" if generator.random() < 0.5 else "labels.txt")
        path.write_bytes(wrong_json(list("abcde"), generator))
        sound = folder / "sound.jsonl"
        sound.write_text("\n".join(map(json.dumps, rows)))
        return [command[0], str(sound), *command[2:], "--labels", str(path)]
    if kind < 0.7:
        path, chosen = folder / "case.jsonl", int(generator.integers(len(rows)))
        lines = [json.dumps(row).encode() for row in rows]
        lines[chosen] = wrong_json(rows[chosen], generator)
        path.write_bytes(b"\n".join(lines))
    else:
        path, cells = folder / "case.csv", [list(rows[0]), *(list(map(str, row.values())) for row in rows)]
        row = cells[int(generator.integers(len(cells)))]
        row[int(generator.integers(len(row)))] = _text(generator)
        data = "\n".join(map(",".join, cells)).encode("utf-8", "surrogatepass")
        path.write_bytes(damaged(data, generator) if generator.random() < 0.3 else data)
    more = ["--multi-label"] if generator.random() < 0.2 else []
    return [command[0], str(path), *command[2:], *more, "--split", "all" if generator.random() < 0.5 else "test"]


FLAGS: dict[str, tuple[str, ...]] = {
    "classify": ("views", "stride", "batch", "dtype", "top", "threads", "labels", "frames", "height", "memory"),
    "features": (
        "stages",
        "clip-stride",
        "stride",
        "batch",
        "dtype",
        "width",
        "preprocessing",
        "max-pixels",
        "max-packets",
    ),
    "explain": ("class", "view", "views", "stride", "batch", "top", "labels", "frames", "memory"),
    "export": ("platforms", "batch", "dtype", "frames", "height", "memory"),
    "convert": (
        "to",
        "config",
        "model",
        "frames",
        "sampled-frames",
        "pooling",
        "order",
        "positions",
        "classes",
        "seed",
    ),
    "evaluate": (
        "split",
        "views",
        "stride",
        "batch",
        "threads",
        "broken",
        "short",
        "shorter-side",
        "heads",
        "progress",
    ),
    "train": ("data", "model", "mesh", "steps", "learning-rate", "batch-size", "crop", "threads", "seed", "recipe"),
    "audit": ("model", "size", "frames", "labels", "memory"),
}


def flags(folder: Path, generator: np.random.Generator) -> list[str] | None:
    command = list(FLAGS)[int(generator.integers(len(FLAGS)))]
    out = str(folder / "out")
    model = ["--checkpoint", str(folder / "ours")]
    video = str(folder / "video.mp4") if generator.random() < 0.5 else _text(generator)
    given = {
        "classify": [video, *model],
        "features": [video, *model, "-o", f"{out}.npz"],
        "explain": [video, *model, "-o", f"{out}.html"],
        "export": [*model, "-o", f"{out}.stablehlo"],
        "convert": [str(folder / "ours"), f"{out}-{generator.integers(10**9)}"],
        "evaluate": [str(folder / "train.csv"), *model],
        "train": ["--data", str(folder / "train.csv"), "--folder", str(folder / "run"), "--print"],
        "audit": [video, *model],
    }[command]
    for _ in range(int(generator.integers(1, 4))):
        name = FLAGS[command][int(generator.integers(len(FLAGS[command])))]
        given = [*given, f"--{name}={_text(generator)}"]
    if generator.random() < 0.1:
        given.pop(int(generator.integers(len(given))))
    return [command, *given]


AREAS: dict[str, Case] = {
    "ours": ours,
    "hugging face": hugging_face,
    "npz": npz,
    "msgpack": message_pack,
    "image": image,
    "run files": run_files,
    "tables": tables,
    "flags": flags,
}


class Fault(Exception):
    """Behaviour that no input may cause."""


def case(area: str, folder: Path, generator: np.random.Generator) -> str:
    """Returns "used", "refused" or "fault:" with a description."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            command = AREAS[area](folder, generator)
            return "used" if command is None else run(command)
    except Fault as fault:
        return f"fault:{fault}"
    except _RefusedError:
        return "refused"


def run(command: list[str]) -> str:
    """Runs a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(command)
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        raise Fault(_told(error)) from None
    check_said(err.getvalue())
    if code not in (0, 1, 2):
        raise Fault(f"ends with {code}")
    return "refused" if code else "used"


def check_said(said: str) -> None:
    """Raises Fault if a message has a traceback or a value that is too long."""
    if "Traceback" in said:
        raise Fault(f"prints a traceback: {said.strip().splitlines()[-1][:200]}")
    if any(len(word) > 2 * MAX_CHARACTERS for word in said.split()):
        raise Fault(f"repeats a value of {max(map(len, said.split()))} characters")


class _RefusedError(Exception):
    pass


def _answered(work: Callable[[], object]) -> None:
    try:
        work()
    except (ValueError, OSError) as error:
        if "\n" in str(error):
            raise Fault(f"says several lines: {str(error)[:200]!r}") from None
        check_said(str(error))
        raise _RefusedError from None
    except BaseException as error:
        raise Fault(_told(error)) from None


def _load(path: Path, **said: Any) -> None:
    _answered(lambda: vivit.load(path, **said))


def _told(error: BaseException) -> str:
    trace, where = error.__traceback__, ""
    while trace is not None:
        if "vivit" in trace.tb_frame.f_code.co_filename:
            where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__} at {where}: {' '.join(str(error).split())[:160]}"


def _copied(source: Path) -> Path:
    place = source.with_name("case")
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(source, place)
    return place


def _rewrite(path: Path, generator: np.random.Generator, to: Path | None = None) -> None:
    (to or path).write_bytes(wrong_json(json.loads(path.read_text()), generator))


def _header(data: bytes) -> bytes:
    (size,) = struct.unpack("<Q", data[:8])
    return data[8 : 8 + size]


def _wrong_safetensors(path: Path, generator: np.random.Generator) -> None:
    data = path.read_bytes()
    if generator.random() < 0.4:
        path.write_bytes(damaged(data, generator))
        return
    header = _header(data)
    changed = wrong_json(json.loads(header), generator)
    path.write_bytes(struct.pack("<Q", len(changed)) + changed + data[8 + len(header) :])


def _wrong_npy(data: bytes, generator: np.random.Generator) -> bytes:
    """Returns a npy file with a wrong header or damaged bytes."""
    if generator.random() < 0.3:
        return damaged(data, generator)
    size = int.from_bytes(data[8:10], "little")
    text = data[10 : 10 + size].decode("latin-1").strip()
    words = ("'descr'", "'<f4'", "False", "'shape'", "(", ")", "{", "}", ",", ":", "'")
    texts = ("", "1", "None", "'<f2'", "'|O'", "'<U9'", "'V2'", "[", "(", "'", '"""', "b'x'", "10**9", "-1", "\0", "9L")
    word = words[int(generator.integers(len(words)))]
    text = text.replace(word, texts[int(generator.integers(len(texts)))], int(generator.integers(1, 3)))
    if generator.random() < 0.2:
        text = text[: int(generator.integers(len(text) + 1))]
    header = text.encode("latin-1") + b"\n"
    return data[:8] + struct.pack("<H", len(header)) + header + data[10 + size :]


def _change_tree(tree: Any, generator: np.random.Generator) -> None:
    """Changes or removes a part of a msgpack tree."""
    while isinstance(tree, dict) and tree:
        name = list(tree)[int(generator.integers(len(tree)))]
        kind = generator.random()
        if kind < 0.05:
            del tree[name]
            return
        if kind < 0.1 or not isinstance(tree[name], dict):
            tree[name] = _wrong_leaf(tree[name], generator)
            return
        tree = tree[name]


def _wrong_leaf(leaf: Any, generator: np.random.Generator) -> Any:
    value = any_value(generator)
    if isinstance(value, int) and abs(value) >= 2**63:
        value = 2**63 - 1
    if not isinstance(leaf, msgpack.ExtType) or generator.random() < 0.3:
        return value
    parts = msgpack.unpackb(leaf.data, raw=False, unicode_errors="surrogatepass")
    parts[int(generator.integers(3))] = value
    return msgpack.ExtType(leaf.code, _packed(parts))


def _packed(value: Any) -> bytes:
    return cast(bytes, msgpack.packb(value, use_bin_type=True, unicode_errors="surrogatepass"))


def _msgpack(arrays: dict[str, np.ndarray]) -> bytes:
    root: dict[str, Any] = {}
    for name, array in arrays.items():
        *folders, last = name.split("/")
        place = root
        for one in folders:
            place = place.setdefault(one, {})
        place[last] = msgpack.ExtType(1, _packed((list(array.shape), array.dtype.name, array.tobytes())))
    return _packed({"params": root})


def _image_config() -> Config:
    return Config(
        model="spatio_temporal",
        frames=4,
        height=32,
        width=32,
        tubelet=(2, 8, 8),
        channels=48,
        heads=4,
        hidden=96,
        layers=3,
        classes=(5,),
    )


def _write_image(folder: Path, model: Model) -> None:
    """Returns the arrays of an image model from those of the port: one frame, patches in place of tubelets."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(folder.with_name("port"), folder)
    arrays = load_file(folder / "model.safetensors")
    arrays = {name.replace("vivit.", "vit."): array for name, array in arrays.items()}
    kernel = "vit.embeddings.patch_embeddings.projection.weight"
    arrays[kernel] = np.ascontiguousarray(arrays[kernel][:, :, 0])
    places = "vit.embeddings.position_embeddings"
    arrays[places] = np.ascontiguousarray(arrays[places][:, :17])
    save_file(arrays, folder / "model.safetensors", {"format": "pt"})
    description = json.loads((folder / "config.json").read_text())
    description |= {"model_type": "vit", "image_size": 32, "patch_size": 8, "hidden_act": "gelu"}
    (folder / "config.json").write_text(json.dumps(description))


def _text(generator: np.random.Generator) -> str:
    """Returns a random argument for a flag."""
    plain = (
        "4x3",
        "1x1",
        "1000x1000",
        "999999999999x1",
        "8",
        "24",
        "2",
        "float32",
        "logits",
        "a",
        "test",
        "1,1,1",
        "loop",
    )
    if generator.random() < 0.5:
        return plain[int(generator.integers(len(plain)))]
    return any_text(generator).replace("\0", "\u0001").replace("\ud800", "\udc80")
