"""Rules for the Markdown pages: links resolve, commands are spelled in one way."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    """Every Markdown page of the repository."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout.split()
    if not listed:
        pytest.skip("THIS IS NO GIT CHECKOUT: which pages belong to it cannot be known")
    # One that is deleted but not yet committed is still listed.
    return sorted(path for name in listed if (path := ROOT / name).is_file())


def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    found: set[str] = set()
    for title in re.findall(r"^#+ (.+)$", FENCE.sub("", page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        found.add(re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-"))
    return found


def broken(page: Path) -> list[str]:
    """Links of a page to files or headings that do not exist."""
    found = []
    for link in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            found.append(link)
    return found


def test_links_lead_to_files_and_headings() -> None:
    assert len(pages()) > 20
    links = {str(page.relative_to(ROOT)): broken(page) for page in pages()}
    assert {page: found for page, found in links.items() if found} == {}


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One `two`, 3\n[a](#one-two-3) [b](#two) [c](gone.md) [d](https://x.y/z)\n")
    assert broken(page) == ["#two", "gone.md"]


# --- commands -----------------------------------------------------------------------------------

OTHER_SPELLING = re.compile(
    r"\.venv/bin/(?!activate|python\])[\w-]+"  # "python]" is in a message of make
    r"|python3? -m latentserve_(?:server|training|client)(?!\.)"
)


def test_commands_are_spelled_as_after_the_activation_of_the_environment() -> None:
    found = [
        f"{page.relative_to(ROOT)}: {spelling}"
        for page in pages()
        for spelling in OTHER_SPELLING.findall(page.read_text("utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "other"),
    [
        (".venv/bin/latentserve models", True),
        ("python -m latentserve_server --help", True),
        (". .venv/bin/activate", False),
        ("torchrun --nproc-per-node 4 -m latentserve_training train", False),
        ("python -m latentserve_client.demo", False),
    ],
)
def test_other_spellings(text: str, other: bool) -> None:
    assert bool(OTHER_SPELLING.search(text)) == other


def test_the_readme_is_short() -> None:
    """2.5 screens: 125 lines of 100 columns, a table's row counted as one."""
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 125
