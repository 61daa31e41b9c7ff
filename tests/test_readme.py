"""The code in the READMEs runs as it is printed."""

import re
from itertools import groupby
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


@pytest.mark.fast
def test_the_readmes_have_code():
    assert len(BLOCKS) == 3


PAGES = ("README.md", *(f"{folder}/README.md" for folder in ("reference", "kernels", "vivit/demo", "tests/fixtures")))


@pytest.mark.fast
@pytest.mark.parametrize("page", PAGES)
def test_the_tables_of_a_readme_are_whole(page):
    """Rows that follow each other are a table if the second is its rule; a blank line within makes text of the rest."""
    lines = (ROOT / page).read_text().splitlines()
    for rows in (list(rows) for is_row, rows in groupby(lines, lambda line: line.lstrip().startswith("|")) if is_row):
        assert len(rows) > 1, rows[0]
        assert re.fullmatch(r"\s*\|(\s*:?-+:?\s*\|)+\s*", rows[1]), f"no rule under {rows[0]}"
        columns = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
        assert set(columns) == {columns[0]}, rows[columns.index(next(n for n in columns if n != columns[0]))]


@pytest.mark.fast
@pytest.mark.parametrize("page", ["README.md", "reference/README.md", "kernels/README.md"])
def test_files_named_in_a_readme_exist(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), target
    for name in set(re.findall(r"`([a-z_]+\.py)`", text)):
        assert [*ROOT.glob(f"*/{name}"), *ROOT.glob(f"*/*/{name}")], name
