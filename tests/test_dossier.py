"""The dossier of an audit: what it says, that it is verified, and that a change in any of its files is found."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoints import model
from trees import replaced
from videos import Coding, encode, scene

import vivit
from vivit.audit import dossier, variants, verification
from vivit.audit.dossier import installed_hash, read_dossier, write_dossier
from vivit.audit.page import page
from vivit.audit.replay import read_replay
from vivit.cli.main import main
from vivit.hashes import hash_of_params
from vivit.reference.config import named
from vivit.reference.params import convert
from vivit.versions import FOLDER

pytestmark = pytest.mark.usefixtures("compiled_quickly")

FILES = ("SHA256SUMS", "audit.json", "clip.npz", "index.html", "replay.npz", "replay.py", "signature.json")
LABELS = (("<script>alert(1)</script>", "b", "c", "d", "e"),)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with a checkpoint, a video, a pair of keys, and a signed dossier of them."""
    folder = tmp_path_factory.mktemp("dossiers")
    made = model(replace(named("vivit-tiny/8x2"), layers=1), labels=LABELS)
    made = replace(made, params=convert(made.params, lambda _, leaf: leaf * np.float32(1.0017)))
    vivit.save(made, folder / "model")
    encode(folder / "film.mkv", scene(20, 40, 40), Coding("ffv1", "bgr0"))
    write_keys(folder, "key")
    arguments = ["audit", str(folder / "film.mkv"), "--checkpoint", str(folder / "model")]
    assert main([*arguments, "--dossier", str(folder / "dossier"), "--sign", str(folder / "key.pem")]) == 0
    return folder


def write_keys(folder, name):
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / f"{name}.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / f"{name}.pub").write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, public))


@pytest.fixture
def copied(here, tmp_path):
    """The dossier, in another folder."""
    shutil.copytree(here / "dossier", tmp_path / "another name")
    return tmp_path / "another name"


def verified(folder, here, capsys, *more, checkpoint="model"):
    """(exit code, result) of verifying."""
    capsys.readouterr()
    code = main(["audit", "--verify", str(folder), "--checkpoint", str(here / checkpoint), "--json", *more])
    return code, json.loads(capsys.readouterr().out)


def signed_anew(folder, change):
    """Changes the predicate, and the manifest to fit: what only a signature or computing again can find."""
    statement = json.loads((folder / "audit.json").read_text())
    change(statement["predicate"])
    (folder / "audit.json").write_text(json.dumps(statement))
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in dossier.FILES]
    (folder / "SHA256SUMS").write_text("".join(lines))
    (folder / "signature.json").unlink()


def test_a_copy_of_a_dossier_is_verified_by_its_key_and_without(here, copied, capsys):
    code, result = verified(copied, here, capsys, "--public-key", str(here / "key.pub"))
    assert (code, result["faults"], result["notes"]) == (0, [], [])
    assert result["checked"] == "the digests of all files, and 34 stages"
    code, result = verified(copied, here, capsys, str(here / "film.mkv"))
    assert (code, result["faults"]) == (0, [])
    assert result["notes"] == ["signature.json was not checked: pass --public-key"]


@pytest.mark.parametrize("name", FILES)
def test_a_change_in_any_file_is_found(name, here, copied, capsys):
    data = bytearray((copied / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / name).write_bytes(data)
    code, result = verified(copied, here, capsys, "--public-key", str(here / "key.pub"))
    assert code == 1
    assert any(name in fault for fault in result["faults"])
    (copied / name).unlink()
    if name == "SHA256SUMS":
        assert main(["audit", "--verify", str(copied), "--checkpoint", str(here / "model")]) == 2
        assert f"is no dossier: it must be a folder with {name}" in capsys.readouterr().err
    else:
        code, result = verified(copied, here, capsys, "--public-key", str(here / "key.pub"))
        assert code == 1
        assert any(name in fault and "missing" in fault for fault in result["faults"])


def test_the_manifest_is_one_for_sha256sum_and_a_file_too_many_is_found(here, copied, capsys):
    lines = (copied / "SHA256SUMS").read_text().splitlines()
    assert {line.partition("  ")[2] for line in lines} == set(FILES) - {"SHA256SUMS", "signature.json"}
    for line in lines:
        digest, _, name = line.partition("  ")
        assert hashlib.sha256((copied / name).read_bytes()).hexdigest() == digest
    (copied / "notes.txt").write_text("mine")
    assert verified(copied, here, capsys)[1]["faults"] == ["notes.txt is no file of the dossier"]


def test_a_changed_manifest_is_found_by_the_signature_alone(here, copied, capsys):
    manifest = copied / "SHA256SUMS"
    manifest.write_text("".join(sorted(manifest.read_text().splitlines(keepends=True))))
    code, result = verified(copied, here, capsys, "--public-key", str(here / "key.pub"))
    assert code == 1
    assert "signature.json is not of this key and these files" in result["faults"][0]
    assert dossier.changed_files(copied) == []


def test_another_key_and_no_signature_are_found(here, copied, capsys, tmp_path):
    write_keys(tmp_path, "other")
    code, result = verified(copied, here, capsys, "--public-key", str(tmp_path / "other.pub"))
    assert (code, len(result["faults"])) == (1, 1)
    assert "signature.json is not of this key and these files" in result["faults"][0]
    (copied / "signature.json").unlink()
    code, result = verified(copied, here, capsys, "--public-key", str(here / "key.pub"))
    assert (code, result["faults"]) == (1, ["signature.json is missing: the dossier is not signed"])


def lower_a_bound(predicate):
    predicate["rows"][3]["bound"] = predicate["rows"][3]["error"] / 2


def forget_a_stage(predicate):
    del predicate["rows"][2]


def call_a_stage_failed(predicate):
    predicate["rows"][0]["passed"] = False


def name_another_class(predicate):
    predicate["decisions"][0]["reference"]["number"] ^= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lower_a_bound, "encoder/0/attention of production, float32,: error"),
        (forget_a_stage, "encoder/0/weights of production, float32, is a stage here, and not in the dossier"),
        (call_a_stage_failed, "tokens of production, float32,: error"),
        (name_another_class, "the classes are ["),
    ],
)
def test_a_figure_that_is_not_borne_out_is_found_by_computing_it_again(change, message, here, copied, capsys):
    signed_anew(copied, change)
    code, result = verified(copied, here, capsys)
    assert code == 1
    assert result["faults"][0].startswith(message)


def test_other_weights_labels_and_preprocessing_and_another_video_are_named(here, copied, capsys, tmp_path):
    made = vivit.load(here / "model")
    bias = np.array(made.params.head.bias)
    bias[0] = np.nextafter(bias[0], np.float32(9))
    other = replace(made, params=replaced(made.params, "head/bias", bias), labels=(tuple("vwxyz"),))
    vivit.save(other, tmp_path / "other")
    code, result = verified(copied, here, capsys, checkpoint=tmp_path / "other")
    assert code == 1
    assert [fault.partition(":")[0] for fault in result["faults"]] == ["other weights", "other labels"]
    encode(tmp_path / "other.mkv", scene(20, 40, 40, 5), Coding("ffv1", "bgr0"))
    code, result = verified(copied, here, capsys, str(tmp_path / "other.mkv"))
    assert code == 1
    assert [fault.partition(":")[0] for fault in result["faults"]] == ["other pixels", "other video"]


def test_another_version_is_said_and_refutes_nothing(here, copied, capsys, monkeypatch):
    monkeypatch.setattr(verification, "source", lambda: {"version": "9", "commit": "f" * 40, "modified": False})
    monkeypatch.setattr(verification, "installed_hash", lambda: "0" * 64)
    code, result = verified(copied, here, capsys)
    assert code == 0
    assert any(note.startswith("another vivit version: 9, the dossier has ") for note in result["notes"])
    assert any(note.startswith(f"other installed: {'0' * 64}, the dossier has ") for note in result["notes"])


def test_the_audit_is_an_in_toto_statement_of_what_was_audited(here):
    statement = json.loads((here / "dossier" / "audit.json").read_text())
    assert statement.keys() == {"_type", "subject", "predicateType", "predicate"}
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    subjects = {one["name"]: one["digest"]["sha256"] for one in statement["subject"]}
    assert subjects.keys() == {"video", "weights", "config", "labels", "preprocessing", "pixels"}
    assert subjects["weights"] == hash_of_params(vivit.load(here / "model").params)
    assert subjects["video"] == hashlib.sha256((here / "film.mkv").read_bytes()).hexdigest()
    with np.load(here / "dossier" / "clip.npz") as file:
        assert subjects["pixels"] == hashlib.sha256(file["clip"].tobytes()).hexdigest()
    predicate = statement["predicate"]
    assert predicate["passed"]
    assert predicate["kernels"] == "interpreted: there is no TPU here"
    assert {row["by"] for row in predicate["rows"]} == {"production", "kernels"}
    assert predicate["installed"] == installed_hash()
    assert predicate["vivit"].keys() == {"version", "commit", "modified"}
    assert (predicate["seeds"], predicate["against"]) == ({}, None)
    assert (predicate["video"], predicate["checkpoint"]) == ("film.mkv", "model")


def test_no_file_of_a_dossier_names_a_folder_of_this_machine(here):
    for path in (here / "dossier").iterdir():
        data = path.read_bytes()
        for folder in (here, Path.cwd(), Path.home(), FOLDER):
            assert os.fsencode(str(folder)) + b"/" not in data, path


def test_the_page_escapes_names_and_shows_every_stage(here):
    text = (here / "dossier" / "index.html").read_text()
    assert "<script" not in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    predicate = json.loads((here / "dossier" / "audit.json").read_text())["predicate"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page(predicate | {"decisions": [labelled(predicate)]})
    assert text.count('<tr><th scope="row">encoder/0/out</th>') == 4  # production and kernels, in two dtypes
    for row in predicate["rows"]:
        assert f"<td>{row['bound']:.2e}</td>" in text


def labelled(predicate):
    decision = predicate["decisions"][0]
    return decision | {"reference": decision["reference"] | {"label": LABELS[0][0]}}


@pytest.mark.fast
def test_the_replay_needs_numpy_and_the_reference_alone(here, tmp_path):
    code = "import sys, runpy; sys.argv = ['replay.py']\n"
    code += "try:\n runpy.run_path('replay.py', run_name='__main__')\nexcept SystemExit as end:\n print(end.code)\n"
    code += "print(sorted(name for name in ('jax', 'av', 'torch') if name in sys.modules))"
    run = [sys.executable, "-c", code]
    options = dict(cwd=here / "dossier", env=os.environ | {"PYTHONPATH": str(FOLDER.parent)})
    out = subprocess.run(run, capture_output=True, text=True, check=True, **options).stdout
    assert "production differs from the reference by " in out
    assert ": within; at [" in out
    assert out.splitlines()[1:] == ["0", "[]"]


def test_a_departure_is_replayed_and_in_the_dossier(here, tmp_path, capsys):
    made = vivit.load(here / "model")
    stages: dict[str, np.ndarray] = {}
    made.logits(made.read(here / "film.mkv")[np.newaxis], capture=stages)
    wrong = {name: np.array(value) for name, value in stages.items()}
    wrong["encoder/0/mlp"] = wrong["encoder/0/mlp"] * np.float32(1.001)
    np.savez(tmp_path / "captured.npz", **wrong)
    arguments = [
        str(here / "film.mkv"),
        "--checkpoint",
        str(here / "model"),
        "--against",
        str(tmp_path / "captured.npz"),
    ]
    assert main(["audit", *arguments, "--dossier", str(tmp_path / "dossier")]) == 1
    predicate = json.loads((tmp_path / "dossier" / "audit.json").read_text())["predicate"]
    assert not predicate["passed"]
    assert (predicate["against"]["departs"], predicate["against"]["causes"]) == (["encoder/0/mlp"], [])
    assert predicate["against"]["name"] == "captured.npz"
    run = [sys.executable, "replay.py"]
    options = dict(cwd=tmp_path / "dossier", env=os.environ | {"PYTHONPATH": str(FOLDER.parent)})
    done = subprocess.run(run, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 1
    assert done.stdout.startswith("encoder/0/mlp: captured.npz differs from the reference by ")
    capsys.readouterr()
    assert main(["audit", *arguments, "--verify", str(tmp_path / "dossier")]) == 0
    np.savez(tmp_path / "captured.npz", **{name: np.array(value) for name, value in stages.items()})
    assert main(["audit", *arguments, "--verify", str(tmp_path / "dossier")]) == 1
    assert "captured.npz departs at no stage: the dossier has ['encoder/0/mlp']" in capsys.readouterr().out


@pytest.mark.fast
def test_a_page_is_written_in_place_of_json(tmp_path, monkeypatch):
    good = variants.VariantComparison(
        variant="one", dtype="float32", tokens=1, parameters=2, formula_multiply_adds=3, compiler_multiply_adds=4.0,
        milliseconds=5.0, error=6e-7, bound=7e-6, passed=True, departs="",
    )  # fmt: skip
    bad = replace(good, variant="two", error=float("nan"), passed=False, departs="tokens: by <much>")
    monkeypatch.setattr(variants, "audit", lambda clip, configs: iter([good, bad]))
    assert main(["audit", "-o", str(tmp_path / "audit.html")]) == 1
    text = (tmp_path / "audit.html").read_text()
    assert "<h1>Audit of every variant</h1>" in text
    assert "<strong>Failed</strong>: 1 of 2 comparisons are within their bounds" in text
    assert "<td>6.00e-07</td><td>7.00e-06</td><td>pass</td>" in text
    assert "<td>not finite</td><td>7.00e-06</td><td>FAIL</td>" in text
    assert "two, float32: first departs at tokens: by &lt;much&gt;" in text


@pytest.mark.fast
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dossier", "new"], "--dossier applies to a checkpoint: pass --checkpoint as well"),
        (["--verify", "none"], "--verify applies to a checkpoint: pass --checkpoint as well"),
        (["--against", "transformers"], "--against applies to a checkpoint: pass --checkpoint as well"),
        (["--checkpoint", "model", "--sign", "key.pem"], "--sign is for a dossier: pass --dossier as well"),
        (["--checkpoint", "model", "--public-key", "k"], "--public-key is for a dossier: pass --verify as well"),
        (["--checkpoint", "model", "--verify", "none"], "none is no dossier: it must be a folder with SHA256SUMS"),
        (["--checkpoint", "model", "--dossier", "model"], "model is read"),
        (["--checkpoint", "model", "--dossier", "d", "--sign", "none.pem"], "none.pem is not a file: it must be a key"),
        (["--checkpoint", "model", "--dossier", "."], ". exists already: name a new folder or an empty one"),
        (["--checkpoint", "model", "--verify", "dossier", "--dossier", "d"], "--dossier writes a dossier: omit it"),
        (["--checkpoint", "model", "--verify", "dossier", "--against", "x.npz"], "--against needs the video again"),
        (
            ["--checkpoint", "model", "--against", "transformers", "--frames", "16"],
            "--frames, --height and --width resize our model alone",
        ),
    ],
)
def test_bad_options_are_one_line(arguments, message, here, capsys, monkeypatch):
    monkeypatch.chdir(here)
    assert main(["audit", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.fast
def test_a_key_that_cannot_be_used_leaves_no_dossier(here, tmp_path):
    (tmp_path / "key.pem").write_text("no key")
    statement = json.loads((here / "dossier" / "audit.json").read_text())["predicate"]
    replayed = read_replay(here / "dossier" / "replay.npz")
    with pytest.raises(ValueError, match=r"key.pem cannot be used: "):
        write_dossier(
            tmp_path / "new",
            statement,
            read_dossier(here / "dossier").clip,
            replayed,
            tmp_path / "key.pem",
        )
    assert os.listdir(tmp_path) == ["key.pem"]
