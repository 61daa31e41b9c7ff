"""The commit in reports: that of the package's own checkout, or none."""

import os
import shutil
import subprocess

import pytest

from vivit.versions import source

pytestmark = pytest.mark.fast


def git(folder, *arguments):
    """Runs git in a folder, with a configured user."""
    somebody = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    command = ["git", "-C", str(folder), "-c", "commit.gpgsign=false", *arguments]
    return subprocess.run(command, env=os.environ | somebody, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A repository with one commit, whose folder package/ has an __init__.py."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "checkout"
    (folder / "package").mkdir(parents=True)
    (folder / "package" / "__init__.py").write_text("one")
    (folder / "notes").write_text("one")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    return folder


def test_the_commit_is_that_of_the_packages_checkout_wherever_one_is(checkout, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-q", "--allow-empty", "-m", "another")
    monkeypatch.chdir(other)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    found = source(checkout / "package")
    monkeypatch.delenv("GIT_DIR")
    assert found["commit"] == git(checkout, "rev-parse", "HEAD") != git(other, "rev-parse", "HEAD")


@pytest.mark.parametrize("file", ["package/__init__.py", "notes"])
def test_uncommitted_changes_are_reported(file, checkout):
    assert source(checkout / "package")["modified"] is False
    (checkout / file).write_text("two")
    found = source(checkout / "package")
    assert found["modified"] is True
    assert found["commit"] == git(checkout, "rev-parse", "HEAD")


def test_a_package_that_is_only_installed_below_somebodys_repository_has_no_commit(checkout):
    installed = checkout / "environment" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("one")
    found = source(installed)
    assert (found["commit"], found["modified"]) == (None, None)


@pytest.mark.parametrize("missing", ["repository", "commit", "git", "permission"])
def test_without_a_repository_a_commit_or_git_there_is_no_commit_and_no_error(missing, checkout, tmp_path, monkeypatch):
    folder = checkout / "package"
    if missing == "repository":
        shutil.rmtree(checkout / ".git")
    elif missing == "commit":
        shutil.rmtree(checkout / ".git")
        git(checkout, "init", "-q")
        git(checkout, "add", ".")
    else:
        (tmp_path / "git").write_text("this cannot be run")
        monkeypatch.setenv("PATH", str(tmp_path / ("nowhere" if missing == "git" else "")))
    found = source(folder)
    assert (found["commit"], found["modified"]) == (None, None)
    assert isinstance(found["version"], str)
