"""The pages are correct: their Python and their commands run, links work and tables are complete.

The Python blocks and the `vivit` commands of a page run in order, in one namespace and one temporary folder, on tiny
files under the names that the page uses. `make` targets are looked up; `python -m bench` commands are parsed only.
"""

import argparse
import importlib
import pkgutil
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from glob import glob
from itertools import groupby
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

import numpy as np
import pytest
from checkpoints import hugging_face_folder
from puzzle_answers import ANSWERS
from strategies import mostly_thorough
from test_checkpoints_image import image_arrays
from videos import Coding, encode, scene

from bench.__main__ import PROGRAMS
from vivit.cli.main import _parser, main
from vivit.cli.parser import Parser
from vivit.reference.config import Config, named

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
         *(f"{folder}/README.md" for folder in ("reference", "kernels", "vivit/demo")))  # fmt: skip

TEXTS = (*PAGES, "CONTRIBUTING.md",
         *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("[alp]*/*.md")))  # fmt: skip

HUB_NAME = "google/vivit-b-16x2-kinetics400"
TINY = named("vivit-tiny/8x2")
IMAGE = dict(frames=1, tubelet=(1, 8, 8), classes=(7,))  # fields of the image model that vit.npz is
FEW_VIDEOS = "--train 8 --validation 4 --test 4 --frames 8"
ONE_STEP = "--epochs 1 --warmup-epochs 0 --batch-size 4"

# what a page prints, and what is run in its place
STAND_INS = {
    '"vivit-b/16x2-fe"': '"vivit-tiny/8x2-fe-average"',
    "frames=32, height=224, width=224": "frames=8, height=32, width=32",
    "--config vivit-b/16x2-fe": "--config vivit-tiny/8x2-fe-average",
    "--model vivit-b/16x2-fe": "--model vivit-tiny/8x2-fe-average",
    "--recipe k400-b-fe --epochs 10": f"--recipe k400-b-fe {ONE_STEP} --crop 32 --resize 32 --mesh 1,1,1",
    "vivit audit\n": "vivit audit --model factorised_dot_product\n",
    "vivit conform my.module": "vivit conform vivit.conformance.adapters.xla --only still --examples 1",
    "vivit data carousel digits/": f"vivit data carousel digits/ {FEW_VIDEOS}",
    "vivit puzzles check mine --only softmax": "vivit puzzles check solved --only inflate",
    "vivit puzzles check mine\n": "vivit puzzles check solved --only inflate\n",
    "check class/*/": "check solved --only inflate",
    "vivit data camera videos\n": "vivit data camera videos --train 14 --validation 7 --test 7\n",
    "--test 7 --frames 50 --size 320": "--test 7 --frames 8 --size 64",
    "--folder demo": "--folder demo --steps 1 --warmup-steps 0 --batch-size 4",
}


class Block(NamedTuple):
    """A fenced block. line: of its first line in the page."""

    language: str
    text: str
    line: int


def blocks(text: str) -> Iterator[Block]:
    for found in re.finditer(r"^( *)```(.*)\n((?:.*\n)*?)\1```$", text, re.MULTILINE):
        yield Block(found[2].strip(), dedent(found[3]), text[: found.start(3)].count("\n") + 1)


def commands(text: str) -> list[str]:
    """The command lines in fenced blocks that are not Python, without prompts and comments, each as one line."""
    shell = "".join(block.text for block in blocks(text) if block.language != "python")
    lines = re.sub(r"\\\n\s*", "", shell).splitlines()
    return [line.strip().removeprefix("$ ") for line in lines]


def code_spans(text: str) -> list[str]:
    """The inline code of a page, each as one line."""
    prose = re.sub(r"^( *)```.*\n(?:.*\n)*?\1```$", "", text, flags=re.MULTILINE)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def with_stand_ins(text: str) -> str:
    for printed, run in STAND_INS.items():
        text = text.replace(printed, run)
    return text


def run(page: str, text: str) -> None:
    """Runs what is in a page, in the current folder. Fails with the page's line for what raises or ends with an error.

    A stand-in for a printed `vivit …` line is run as a command of its own.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(text):
        code = with_stand_ins(block.text)
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + code, page, "exec"), namespace)
            continue
        for command in commands(f"```\n{code}```"):
            if command.startswith("vivit "):
                run_command(command, f"{page}, block at line {block.line}: {command}")


def run_command(command: str, where: str) -> None:
    words = [sorted(glob(word)) or [word] if "*" in word else [word] for word in shlex.split(command, comments=True)]
    try:
        code = main([word for found in words for word in found][1:])
    except SystemExit as end:
        code = end.code
    assert code == 0, where


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory) -> Path:
    """A folder with all that the pages name: videos, checkpoints, an image model, and a cache of the hub."""
    folder = tmp_path_factory.mktemp("stand-ins")
    encode(folder / "video.mp4", scene(24, 40, 48), Coding())
    for split, count in (("train", 2), ("validation", 1), ("test", 1)):
        for label in ("jump", "run"):
            (folder / "videos" / split / label).mkdir(parents=True)
            for number in range(count):
                encode(folder / "videos" / split / label / f"{number}.mp4", scene(16, 40, 48, number), Coding())
    commit = "0" * 40
    cached = folder / "hub" / f"models--{HUB_NAME.replace('/', '--')}"
    labels = {"id2label": dict(enumerate(("abseiling", "archery", "bowling", "crying", "yoga")))}
    (cached / "snapshots").mkdir(parents=True)
    hugging_face_folder(cached / "snapshots" / commit, TINY, config=labels)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    shutil.copytree(cached / "snapshots" / commit, folder / "checkpoint")
    (folder / "solved").mkdir()
    (folder / "solved" / "04_inflate.py").write_text(f"import numpy as np\n{ANSWERS['inflate'].code}")
    np.savez(folder / "vit.npz", **image_arrays(Config(**vars(TINY) | IMAGE)))
    return folder


@pytest.fixture
def here(stand_ins, compiled_quickly, tmp_path, monkeypatch) -> Path:
    """The current folder is a fresh one with links to the stand-ins and to vivit/; the hub is its cache alone."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(stand_ins / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for path in (*stand_ins.iterdir(), ROOT / "vivit"):
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", mostly_thorough(PAGES, "README.md", "docs/python.md"))
def test_the_python_and_the_commands_of_a_page_run(page, here, capsys):
    if re.search(r"^vivit data \w+ videos$", read(page), re.MULTILINE):  # the page makes its own
        (here / "videos").unlink()
    run(page, read(page))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```python\nx = 1\n```\n\n```python\nassert x == 2, 'two'\n```\n", "two"),
        ("```python\nvivit.no_such_name\n```\n", "name 'vivit' is not defined"),
        ("```sh\nvivit info --jason\n```\n", "page.md, block at line 2: vivit info --jason"),
        ("```\nvivit classify no-such-file.mp4\n```\n", "vivit classify no-such-file.mp4"),
        ("1. a list\n\n   ```console\n   $ vivit \\\n     info vivit-q/1x1\n   ```\n", "vivit info vivit-q/1x1"),
    ],
)
def test_a_fault_in_a_page_is_found(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((AssertionError, NameError), match=re.escape(message)):
        run("page.md", text)


@pytest.mark.fast
@pytest.mark.parametrize("printed", STAND_INS)
def test_every_stand_in_replaces_something_in_the_pages(printed):
    assert any(printed in block.text for page in PAGES for block in blocks(read(page)))


@pytest.mark.fast
def test_the_pages_have_code_and_the_readme_begins_with_the_two_commands_that_set_it_up():
    languages = [(page, block.language) for page in PAGES for block in blocks(read(page))]
    assert sum(language == "python" for _, language in languages) >= 7
    readme = [line.partition("#")[0].strip() for line in commands(read("README.md"))]
    assert readme[:2] == ["make demo", "make test"]
    assert f"vivit classify video.mp4 --checkpoint {HUB_NAME}" in readme


class _ParsedError(Exception):
    """Raised in place of what a program would do once it has its options."""


def parsed_bench(words: list[str], monkeypatch) -> Parser:
    """The parser of a program of bench/, once it has parsed these words."""
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self, *arguments, **options):
        parse(self, *arguments, **options)
        raise _ParsedError(self)

    monkeypatch.setattr(Parser, "parse_args", parse_only)
    with pytest.raises(_ParsedError) as caught:
        importlib.import_module(f"bench.{words[0]}").main(words[1:])
    return caught.value.args[0]


def bench_lines() -> list[str]:
    lines = {line for page in TEXTS for line in (*commands(read(page)), *code_spans(read(page)))}
    return sorted(line for line in lines if line.startswith("python -m bench "))


@pytest.mark.fast
@pytest.mark.parametrize("line", bench_lines())
def test_a_bench_command_is_one_that_its_program_takes(line, monkeypatch):
    words = shlex.split(line, comments=True)[3:]
    assert words[0] in PROGRAMS
    parsed_bench(words, monkeypatch)


@pytest.mark.fast
def test_every_page_is_listed_on_the_site():
    listed = {
        Path("docs", line.partition("<")[2].removesuffix(">") or line)
        for block in blocks(read("docs/index.md"))
        for line in block.text.splitlines()
        if block.language == "{toctree}"
    }
    listed = {Path(ROOT, path).resolve().relative_to(ROOT).as_posix() for path in listed}
    wanted = {*TEXTS, "CHANGELOG.md"} - {"docs/index.md"}
    assert {page for page in wanted if "docs/lessons/" not in page} <= {f"{path}.md" for path in listed}


@pytest.mark.fast
def test_options_named_in_the_pages_exist(monkeypatch):
    (choices,) = (action.choices for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    parsers = [parser.filled() for parser in choices.values()]
    nested = (action for parser in parsers for action in parser._actions)
    nested = [action for action in nested if isinstance(action, argparse._SubParsersAction)]
    parsers += [parser.filled() for action in nested for parser in action.choices.values()]
    parsers += [parsed_bench([name], monkeypatch) for name in PROGRAMS]
    known = {option for parser in parsers for option in parser._option_string_actions}
    for page in TEXTS:
        for span in code_spans(read(page)):
            for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", span):
                assert option in known, f"{page}: {span}"


@pytest.mark.fast
def test_make_targets_and_extras_named_in_the_pages_exist():
    targets = set(re.findall(r"^([\w-]+):(?!=)", read("Makefile"), re.MULTILINE))
    extras = tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"]
    for page in TEXTS:
        for line in (*commands(read(page)), *code_spans(read(page))):
            if line.startswith("make "):
                asked = [word for word in shlex.split(line, comments=True)[1:] if "=" not in word]
                assert targets.issuperset(asked), f"{page}: {line}"
            for names in re.findall(r"^(?:pip install .*\.)?\[([\w,]+)\]", line):
                assert extras.keys() >= set(names.split(",")), f"{page}: {line}"


@pytest.mark.fast
@pytest.mark.parametrize("page", TEXTS)
def test_python_names_in_a_page_exist(page):
    """A module's file is enough: an adapter of somebody else's implementation cannot be imported without that."""
    for name in {name for span in code_spans(read(page)) for name in re.findall(r"\bvivit(?:\.\w+)+", span)}:
        if not (ROOT / name.replace(".", "/")).with_suffix(".py").exists():
            pkgutil.resolve_name(name)


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    text = re.sub(r"^( *)```.*\n(?:.*\n)*?\1```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.fast
@pytest.mark.parametrize("page", TEXTS)
def test_links_work_and_named_files_exist(page):
    text, folder = read(page), (ROOT / page).parent
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = folder / name if name else ROOT / page
        assert path.exists(), target
        assert not anchor or anchor in headings(path), target
    for name in set(re.findall(r"`([a-z_]+\.py)`", text)):
        assert [*ROOT.glob(f"*/{name}"), *ROOT.glob(f"*/*/{name}")], name


@pytest.mark.fast
@pytest.mark.parametrize("page", [*TEXTS, "tests/fixtures/README.md"])
def test_the_tables_of_a_page_are_whole(page):
    """Rows that follow each other are a table if the second is its rule; a blank line within makes text of the rest."""
    lines = read(page).splitlines()
    for rows in (list(rows) for is_row, rows in groupby(lines, lambda line: line.lstrip().startswith("|")) if is_row):
        assert len(rows) > 1, rows[0]
        assert re.fullmatch(r"\s*\|(\s*:?-+:?\s*\|)+\s*", rows[1]), f"no rule under {rows[0]}"
        columns = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
        assert set(columns) == {columns[0]}, rows[columns.index(next(n for n in columns if n != columns[0]))]
