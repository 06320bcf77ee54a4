"""A Dockerfile's own steps, without Docker: COPY and RUN in a folder that plays the root.

Both stages use the same path as their root, one after the other, because programs remember where they were installed.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from deploy.tools import ROOT

#: Steps that put nothing into the root: they say how it is run.
DECLARED = {"ARG", "LABEL", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


@dataclass(slots=True)
class Stage:
    """One FROM, and what follows it up to the next."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def of(self, instruction: str) -> list[str]:
        return [text for word, text in self.steps if word == instruction]


def stages(path: Path) -> tuple[dict[str, str], list[Stage]]:
    """The build arguments before the first FROM, and the stages. Comments are dropped, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    arguments: dict[str, str] = {}
    found: list[Stage] = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if not line.strip():
            continue
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(name or str(len(found)), base))
        elif found:
            found[-1].steps.append((word, " ".join(rest.split())))
        else:
            name, _, value = rest.partition("=")
            arguments[name] = value
    return arguments, found


def context_files(ignore: Path) -> list[Path]:
    """The tracked or new files that .dockerignore lets into the build."""
    rules = [line for line in ignore.read_text().splitlines() if line and not line.startswith("#")]
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    return [Path(name) for name in listed.stdout.decode().splitlines() if _is_let_in(name, rules)]


def _is_let_in(name: str, rules: list[str]) -> bool:
    """The last rule that fits decides, for the file or for a folder that it is in."""
    parts = [str(parent) for parent in Path(name).parents if str(parent) != "."] + [name]
    is_in = True
    for rule in rules:
        pattern = rule.removeprefix("!").removeprefix("**/")
        fits = [
            part for part in parts if fnmatch(part, pattern) or ("**/" in rule and fnmatch(Path(part).name, pattern))
        ]
        if fits:
            is_in = rule.startswith("!")
    return is_in


class Builder:
    """Runs stages. root: plays / of the stage that is being built; `kept` has the roots of those before it."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.root = folder / "root"
        self.context = folder / "context"
        self._folder = folder
        self.environ = {"PATH": f"{python.parent}:/usr/bin:/bin", "HOME": str(folder), "LC_ALL": "C.UTF-8"}
        for setting in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT"):
            if setting in os.environ:
                self.environ[setting] = os.environ[setting]
        for file in context_files(ROOT / ".dockerignore"):
            (self.context / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, self.context / file)

    def build(self, stage: Stage) -> None:
        """Run its steps; afterwards `root` is what the stage has made. A step that fails is an AssertionError."""
        self.root.mkdir()
        here, environ = Path("/"), dict(self.environ)
        for word, text in stage.steps:
            if word == "WORKDIR":
                here = Path(text)
                self._real(here).mkdir(parents=True, exist_ok=True)
            elif word == "ENV":
                environ |= dict(pair.split("=", 1) for pair in shlex.split(text) if not pair.startswith("PATH="))
            elif word == "COPY":
                self._copy(text, here)
            elif word == "RUN":
                self._run(text, here, environ)
            else:
                assert word in DECLARED, f"{word} {text}: nobody plays this step"

    def keep(self, stage: Stage) -> None:
        """Put the root aside, for COPY --from."""
        self.root.rename(self._folder / f"stage-{stage.name}")

    def _real(self, path: Path) -> Path:
        return self.root / path.relative_to("/")

    def _copy(self, text: str, here: Path) -> None:
        *sources, target = text.split()
        origin = self.context
        if sources[0].startswith("--from="):
            origin = self._folder / f"stage-{sources.pop(0).removeprefix('--from=')}"
        for source in sources:
            path, to = origin / source.lstrip("/"), self._real(here / target)
            if path.is_dir():
                shutil.copytree(path, to, symlinks=True)
            else:
                to.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, to)

    def _run(self, text: str, here: Path, environ: dict[str, str]) -> None:
        moved = re.sub(r"(?<![\w.])/(opt|src)/", lambda found: f"{self.root}/{found[1]}/", text)
        done = subprocess.run(
            ["sh", "-ec", moved], cwd=self._real(here), env=environ, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"RUN {text}\n{done.stdout}{done.stderr}"


def files(folder: Path) -> Iterator[str]:
    """Paths below a folder."""
    yield from (str(path.relative_to(folder)) for path in folder.rglob("*"))
