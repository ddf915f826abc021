"""What a stored result says of its making."""

import subprocess

import pytest

from ct_adam.sweep import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    def git(*words):
        identity = ("-c", "user.name=n", "-c", "user.email=n@example.org")
        done = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(done, check=True, capture_output=True, text=True).stdout.strip()

    code = tmp_path / "package" / "provenance.py"
    code.parent.mkdir()
    code.write_text("")
    (tmp_path / "figure.png").write_text("before")
    git("init", "--quiet")
    monkeypatch.setattr(provenance, "__file__", str(code))
    return tmp_path, code, git


def test_a_commit_is_named_with_changes_of_code_only(checkout):
    folder, code, git = checkout
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    commit = git("rev-parse", "--short", "HEAD")
    assert provenance.git_hash() == commit
    (folder / "figure.png").write_text("after")
    assert provenance.git_hash() == commit
    code.write_text("x = 1")
    assert provenance.git_hash() == f"{commit}+changes"


def test_files_of_no_repository_of_ours_have_no_commit(checkout):
    _, _, git = checkout
    git("commit", "--quiet", "--allow-empty", "--message", "somebody else's")
    assert provenance.git_hash() == "none"
