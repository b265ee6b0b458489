"""Rules for all files of the repository: versions, sizes, copies, paths."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEMBERS = ("proto", "server", "training", "clients/python")
PACKAGES = (
    "server/latentserve_server",
    "training/latentserve_training",
    "clients/python/latentserve_client",
)
MAX_LINES = 350

# Home folders of users and build machines. "https://host/home/x" is not such a path, and examples
# may use the home folder of the user "somebody".
MACHINE_PATH = re.compile(r"(?<![\w.-])/(?:root|home|Users)/(?!somebody/)\w")


def project(member: str) -> dict[str, Any]:
    document = tomllib.loads((ROOT / member / "pyproject.toml").read_text("utf-8"))
    table: dict[str, Any] = document["project"]
    return table


def supported_minors(member: str) -> range:
    """The minor versions of Python 3 that a distribution may be installed on."""
    stated = project(member)["requires-python"]
    bounds = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", stated)
    assert bounds, stated
    return range(int(bounds[1]), int(bounds[2]))


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


# --- versions ---------------------------------------------------------------------------------


def test_all_distributions_have_the_same_version() -> None:
    versions = {member: project(member)["version"] for member in MEMBERS}
    assert len(set(versions.values())) == 1, versions


def test_the_workspace_lists_every_distribution() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert set(document["tool"]["uv"]["workspace"]["members"]) == set(MEMBERS)


@pytest.mark.parametrize("member", ["server", "clients/python"])
def test_users_of_the_wire_contract_require_exactly_its_version(member: str) -> None:
    assert f"latentserve-proto=={project('proto')['version']}" in project(member)["dependencies"]


def test_all_distributions_support_the_same_pythons() -> None:
    assert len({project(member)["requires-python"] for member in MEMBERS}) == 1


@pytest.mark.parametrize("member", MEMBERS)
def test_a_distribution_is_classified_by_exactly_the_pythons_that_it_supports(member: str) -> None:
    prefix = "Programming Language :: Python :: 3."
    classified = project(member)["classifiers"]
    assert classified == [f"{prefix}{minor}" for minor in supported_minors(member)]


def test_the_makefile_takes_exactly_the_supported_pythons() -> None:
    minors = supported_minors("server")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    stated = re.findall(r"3\.(\d+) to 3\.(\d+)", makefile)
    checked = re.findall(r"\(3, (\d+)\) <= sys\.version_info\[:2\] <= \(3, (\d+)\)", makefile)
    bounds = (str(minors[0]), str(minors[-1]))
    assert stated == [bounds, bounds]
    assert checked == [bounds]


def test_ruff_and_ci_take_the_oldest_supported_python() -> None:
    oldest = supported_minors("server")[0]
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    assert tool["ruff"]["target-version"] == f"py3{oldest}"
    assert f"PYTHON=python3.{oldest}\n" in (ROOT / ".ci" / "run").read_text("utf-8")


@pytest.mark.parametrize("package", PACKAGES)
def test_the_version_of_a_package_is_that_of_its_distribution(package: str) -> None:
    tree = ast.parse((ROOT / package / "__init__.py").read_text("utf-8"))
    stated = [
        node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and any(isinstance(name, ast.Name) and name.id == "__version__" for name in node.targets)
    ]
    member = package.rpartition("/")[0]
    assert stated in ([], [project(member)["version"]])


# --- modules ----------------------------------------------------------------------------------


def test_the_modules_of_every_package_are_found() -> None:
    for package in PACKAGES:
        assert any(path.is_relative_to(ROOT / package) for path in modules()), package


def test_no_module_is_longer_than_350_lines() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in modules()
    }
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def folders() -> list[Path]:
    return sorted({path.parent for path in modules()})


# The modules of the public package of the client are few lines each, and private but for four.
LARGER_FOLDERS = {"latentserve_client": 20}


def test_a_folder_has_3_to_13_modules() -> None:
    counts = {folder: len(list(folder.glob("*.py"))) for folder in folders()}
    assert len(counts) > 25
    wrong = {
        folder.name: count
        for folder, count in counts.items()
        if not 3 <= count <= LARGER_FOLDERS.get(folder.name, 13)
    }
    assert wrong == {}


def test_the_name_of_a_module_does_not_repeat_that_of_its_folder() -> None:
    repeating = [
        str(path.relative_to(ROOT))
        for path in modules()
        if {path.parent.name, path.parent.name.removesuffix("s")} & set(path.stem.split("_"))
    ]
    assert repeating == []


def test_the_docstring_of_a_module_says_what_it_is_in_under_15_words() -> None:
    longer = []
    for path in modules():
        if path.name.endswith("_pb2.py"):
            continue
        docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        first = re.split(r"(?<=[.:])\s|\n\n", docstring.strip())[0]
        if not 1 <= len(first.split()) < 15:
            longer.append(f"{path.relative_to(ROOT)}: {first}")
    assert longer == []


@pytest.mark.parametrize("package", [*PACKAGES, "proto/latentserve"])
def test_every_package_has_a_py_typed_file(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


# --- copies -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "copy",
    ["server/latentserve_server", "training/latentserve_training"],
)
def test_the_copies_of_the_exports_contract_are_identical(copy: str) -> None:
    contract = (ROOT / "exports" / "manifest.schema.json").read_bytes()
    assert (ROOT / copy / "manifest.schema.json").read_bytes() == contract


def test_pictures_by_clients_and_by_training_have_one_style() -> None:
    client = ROOT / "clients/python/latentserve_client/style.py"
    training = ROOT / "training/latentserve_training/report/style.py"
    assert training.read_bytes() == client.read_bytes()


# --- text files -------------------------------------------------------------------------------


def git_files() -> list[Path]:
    """Return every file that is committed or would be added by `git add .`."""
    if not (ROOT / ".git").exists():
        pytest.skip("NOT A GIT CHECKOUT: the committed files are not known")
    result = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "-c", "-o", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    paths = {ROOT / name for name in result.stdout.split("\0") if name}
    return sorted(path for path in paths if path.is_file())


def test_no_text_file_contains_a_path_of_a_machine() -> None:
    found = []
    scanned = 0
    for path in git_files():
        content = path.read_bytes()
        if b"\0" in content[:8192]:
            continue
        scanned += 1
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
            if MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert scanned > 30
    assert found == []


def slashes(text: str) -> str:
    """Replace "|" by "/"; the samples below use "|", because this file is searched as well."""
    return text.replace("|", "/")


@pytest.mark.parametrize(
    "text", ["|root|project|x.py", "'|home|ann|data'", "path=|Users|ann", "file:|||home|ann"]
)
def test_the_search_for_paths_finds(text: str) -> None:
    assert MACHINE_PATH.search(slashes(text))


@pytest.mark.parametrize(
    "text",
    [
        "https:||example.org|home|page",
        "|rooted|tree",
        "~|home",
        "a|root|b",
        "|home",
        "|home|somebody|x.py",
    ],
)
def test_the_search_for_paths_does_not_find(text: str) -> None:
    assert not MACHINE_PATH.search(slashes(text))
