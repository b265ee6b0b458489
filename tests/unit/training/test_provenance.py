import re

from latentserve_training import provenance


def test_versions_list_the_libraries_that_affect_a_model():
    versions = provenance.library_versions()
    assert {"python", "torch", "onnxruntime"} <= set(versions)
    assert all(re.match(r"\d+\.\d+", version) for version in versions.values())


def answer(monkeypatch, **replies):
    def git(folder, *arguments):
        return replies[arguments[0].replace("-", "_")]

    monkeypatch.setattr(provenance, "_git", git)


def test_a_checkout_is_named_by_its_commit(monkeypatch):
    answer(monkeypatch, ls_files="provenance.py", rev_parse="abc123", status="")
    assert provenance.source_revision() == "abc123"


def test_changed_sources_are_marked(monkeypatch):
    answer(monkeypatch, ls_files="provenance.py", rev_parse="abc123", status=" M loops.py")
    assert provenance.source_revision() == "abc123-dirty"


def test_the_revision_of_an_enclosing_repository_is_not_used(monkeypatch):
    answer(monkeypatch, ls_files=None, rev_parse="abc123", status="")
    assert provenance.source_revision() == "unknown"


def test_a_missing_git_is_not_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.source_revision() == "unknown"
