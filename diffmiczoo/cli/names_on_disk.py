"""`NamesOnDisk`: a set of names in memory that does not grow with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

from diffmiczoo.errors import UnusableFileError


class NamesOnDisk:
    """A set of texts in a private database of SQLite: a temporary file that goes with it.

    Raises:
        OSError: there is no room for it.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE names (name BLOB PRIMARY KEY) WITHOUT ROWID")

    def update(self, names: Iterable[str]) -> None:
        """Adds names."""
        try:
            self._database.executemany("INSERT OR IGNORE INTO names VALUES (?)", ((_encoded(name),) for name in names))
        except sqlite3.OperationalError as error:
            raise UnusableFileError(f"no room for the names ({error}); set TMPDIR to a folder with some") from error

    def __contains__(self, name: str) -> bool:
        found = self._database.execute("SELECT 1 FROM names WHERE name = ?", (_encoded(name),))
        return found.fetchone() is not None

    def __len__(self) -> int:
        count: int = self._database.execute("SELECT COUNT(*) FROM names").fetchone()[0]
        return count

    def __iter__(self) -> Iterator[str]:
        return (name.decode("utf-8", "surrogatepass") for (name,) in self._database.execute("SELECT name FROM names"))

    def close(self) -> None:
        """Removes it."""
        self._database.close()


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")
