"""The lessons run, and each has what a lesson has: its cost, sources of every form, figures, questions with answers."""

import pkgutil
import re
from itertools import pairwise

import pytest

from bench.lessons import FOLDER, cells, lessons, run

LESSONS = lessons()
OPENING = re.compile(
    r"\*Running time: (\d+) s of one CPU core\. Memory: (\d+) MB\.\*\n\n"
    r"```{code-cell} python\n:tags: \[skip-execution\]\n%pip install "
)
QUESTION = re.compile(
    r"^\*\*(\d)\.\*\* .*?^<details><summary>Answer</summary>\n\n.+?\n\n</details>$", re.MULTILINE | re.DOTALL
)


def named(lesson):
    return lesson.stem


def read(lesson):
    return lesson.read_text(encoding="utf-8")


@pytest.mark.thorough  # `make docs` runs them too
@pytest.mark.parametrize("lesson", LESSONS, ids=named)
def test_every_cell_of_a_lesson_runs_and_its_statements_hold(lesson):
    run(lesson)


@pytest.mark.fast
def test_there_are_twelve_lessons_and_each_leads_to_the_next():
    assert [int(lesson.name[:2]) for lesson in LESSONS] == [*range(1, 13)]
    for lesson, following in pairwise(LESSONS):
        assert re.findall(r"^Next: \[.*\]\((.*)\)\.$", read(lesson), re.MULTILINE) == [following.name]
    assert re.findall(r"^(\d\d-[\w-]+)$", read(FOLDER / "index.md"), re.MULTILINE) == [*map(named, LESSONS)]


@pytest.mark.fast
@pytest.mark.parametrize("lesson", LESSONS, ids=named)
def test_a_lesson_opens_with_what_it_costs_as_the_table_of_lessons_says(lesson):
    said = OPENING.search(read(lesson))
    row = re.search(rf"^\| {lesson.stem} \| (\d+) \| (\d+) \|$", read(FOLDER / "index.md"), re.MULTILINE)
    assert said.groups() == row.groups()


@pytest.mark.fast
@pytest.mark.parametrize("lesson", LESSONS, ids=named)
def test_a_lesson_has_figures_predictions_and_three_questions_with_folded_answers(lesson):
    code = "\n".join(text for _, text in cells(lesson))
    assert code.count("drawing.show(") >= 2
    assert len(re.findall(r"^\s*assert ", code, re.MULTILINE)) >= 3
    assert read(lesson).count("**Predict.**") + read(lesson).count("**Predict first.**") >= 2
    _, asked = read(lesson).split("\n## Questions\n")
    assert [found[1] for found in QUESTION.finditer(asked)] == ["1", "2", "3"]
    assert asked.count("<details>") == 3


@pytest.mark.fast
@pytest.mark.parametrize("lesson", LESSONS, ids=named)
def test_the_sources_that_a_lesson_shows_exist_in_every_form(lesson):
    blocks = re.findall(r"^```{sources}\n(.*?)^```$", read(lesson), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        options = dict(re.findall(r"^:([\w-]+): (.*)$", block, re.MULTILINE))
        assert options.keys() in ({"numpy", "jax", "pallas"}, {"numpy", "jax", "no-kernel"})
        for form in options.keys() - {"no-kernel"}:
            for name in options[form].split():
                assert name.startswith({"numpy": "vivit.reference.", "pallas": "vivit.kernels."}.get(form, "vivit."))
                pkgutil.resolve_name(name)
