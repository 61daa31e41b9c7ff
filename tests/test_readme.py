"""The code in the READMEs runs as it is printed."""

import re
from pathlib import Path

import pytest
from checkpoints import model

import vivit

ROOT = Path(__file__).parent.parent
BLOCKS = [
    pytest.param(code, id=f"{page}-{index}")
    for page in ("README.md", "reference/README.md")
    for index, code in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL))
]


@pytest.mark.parametrize("code", BLOCKS)
def test_the_code_of_a_readme_runs(code, demo_path, tmp_path, monkeypatch, capsys):
    (tmp_path / "video.mp4").symlink_to(demo_path)
    config = vivit.named("vivit-tiny/8x2")
    vivit.save(tmp_path / "checkpoint", model(config, labels=(tuple("abcde"),)))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README", "exec"), {})
    assert capsys.readouterr().out


def test_the_readmes_have_code():
    assert len(BLOCKS) == 3


@pytest.mark.parametrize("page", ["README.md", "reference/README.md", "kernels/README.md"])
def test_files_named_in_a_readme_exist(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), target
    for name in set(re.findall(r"`([a-z_]+\.py)`", text)):
        assert [*ROOT.glob(f"*/{name}"), *ROOT.glob(f"*/*/{name}")], name
