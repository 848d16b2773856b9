"""What the documents tell people to type is understood, and what they point to is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from hpc.errors import ConfigError
from udipdist.cli import VERBS, resolve

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "launch" / "README.md", *sorted(ROOT.glob("docs/*.md"))]
CONFIGS = sorted(ROOT.glob("configs/**/*.yaml"))


def commands() -> list[tuple[Path, str]]:
    """Indented lines of pages, and lines in the heads of configurations, that begin with udipdist."""
    found = []
    for page in PAGES:
        text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
        for line in re.findall(r"^    (udipdist .*)$", text, flags=re.MULTILINE):
            found += [(page, part.strip()) for part in line.split(";") if part.strip().startswith("udipdist ")]
    for path in CONFIGS:
        found += [
            (path, text) for text in re.findall(r"^#.*?(udipdist [a-z]\S* \S.*)$", path.read_text(), re.MULTILINE)
        ]
    return found


def understood(command: str) -> None:
    """Parse a command line; a configuration that is the reader's own may lack keys. Raises ConfigError."""
    words = shlex.split(command, comments=True)[1:]
    verb = next(v for v in VERBS if v.name.split() == words[: len(v.name.split())])
    words = words[len(verb.name.split()) :]
    own = [word for word in words if word.endswith(".yaml") and "=" not in word and not (ROOT / word).exists()]
    given = [str(ROOT / word) if (ROOT / word).is_file() else word for word in words if word not in own]
    if any(word.startswith("--") for word in words):
        return
    try:
        resolve(verb, tuple(given))
    except ConfigError as error:
        wrong = [line for line in str(error).splitlines() if not (own and "is required" in line)]
        if wrong:
            raise ConfigError("\n".join(wrong)) from None


@pytest.mark.parametrize(("page", "command"), commands(), ids=lambda value: getattr(value, "name", None))
def test_commands_are_understood(page, command):
    understood(command)


def test_a_wrong_command_is_noticed():
    assert len(commands()) > 20
    for command in (
        "udipdist loci sumstat=gwas",
        "udipdist sweep configs/sweep/table1.yaml spaces.x=1",
        "udipdist lo a=1",
    ):
        with pytest.raises((ConfigError, StopIteration)):
            understood(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, heading = target.partition("#")
        assert target.startswith("https://") or (page.parent / path).exists(), target
        if heading and path:
            lines = (page.parent / path).read_text(encoding="utf-8").splitlines()
            titles = [re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in lines]
            assert heading in titles, target
    for module in re.findall(r"python -m ((?:hpc|udipdist|benchmarks)[\w.]*)", text):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), module
