"""Files of the log: lines and Parquet, what was kept, and what was lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl.errors import MissingExtra
from fl.inference_log.counts import REFUSED, REMOVED, TAKEN, Counts
from fl.inference_log.records import COLUMNS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class Tally:
    """What became of the records of one server of a folder.

    taken     in all
    refused   never written, because the queue was full or the disk refused them
    kept      there to be read
    removed   written, and removed since, because the folder would have grown beyond its bound
    live      whether the server runs
    """

    server: str
    taken: int
    refused: int
    kept: int
    removed: int
    live: bool

    @property
    def lost(self) -> int:
        """Taken and never written, because the server was killed; of one that runs, those that wait."""
        return max(0, self.taken - self.refused - self.kept - self.removed)


def recover(folder: Path) -> int:
    """Make Parquet of what servers left behind that were killed; how many records those that ended lost in all."""
    for path in sorted(folder.glob("*.count")):
        with Counts(path) as counts:
            for part in [] if counts.alive else sorted(folder.glob(f"{path.stem}-*.jsonl")):
                to_parquet(part)
    return sum(tally.lost for tally in tallies(folder) if not tally.live)


def tallies(folder: Path) -> list[Tally]:
    """What became of the records of each server of a folder, the oldest server first. MissingExtra without DuckDB."""
    kept = {
        row["server"]: row["kept"] for row in read(folder, "SELECT server, count(*) AS kept FROM records GROUP BY 1")
    }
    found = []
    for path in sorted(folder.glob("*.count")):
        with Counts(path) as counts:
            taken, refused, removed = (counts.get(place) for place in (TAKEN, REFUSED, REMOVED))
            found.append(Tally(path.stem, taken, refused, kept.get(path.stem, 0), removed, counts.alive))
    return found


def read(folder: Path, query: str = "SELECT * FROM records ORDER BY time") -> list[dict[str, Any]]:
    """The answer to an SQL query over ``records``: everything that is there, written a moment ago or long since.

    Raises MissingExtra without DuckDB, and what DuckDB has against the query.
    """
    with _connected() as connection:
        connection.execute(f"CREATE VIEW records AS {_everything(folder)}")
        found = connection.execute(query)
        names = [about[0] for about in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _everything(folder: Path) -> str:
    """SQL for all records; a file that is being made Parquet this moment counts once, by its Parquet."""
    parquet = sorted(folder.glob("*.parquet"))
    done = {path.stem for path in parquet}
    parts = [path for path in sorted(folder.glob("*.jsonl")) if path.stem not in done]
    sources = [f"SELECT * FROM read_parquet({_listed(parquet)})"] if parquet else []
    sources += [_lines(path) for path in parts]
    nothing = ", ".join(f"NULL::{kind} AS {name}" for name, kind in COLUMNS.items())
    return " UNION ALL ".join(sources) if sources else f"SELECT {nothing} WHERE false"


def _listed(paths: list[Path]) -> str:
    return "[" + ", ".join(_quoted(path) for path in paths) + "]"


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _lines(path: Path) -> str:
    """SQL for the records of a file of lines, of which the last one may be torn."""
    lists = {name: kind if name == "server" else f"{kind}[]" for name, kind in COLUMNS.items()}
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in lists.items())
    options = f"format = 'newline_delimited', ignore_errors = true, columns = {{{columns}}}"
    fields = ", ".join(name if name == "server" else f"unnest({name}) AS {name}" for name in COLUMNS)
    return f"SELECT {fields} FROM read_json({_quoted(path)}, {options}) WHERE number IS NOT NULL"


def to_parquet(path: Path) -> None:
    """Make ``path`` Parquet; a crash in between leaves both, or one, and doing it again changes nothing."""
    target, draft = path.with_suffix(".parquet"), path.with_suffix(".draft")
    with _connected() as connection:
        connection.execute(f"COPY ({_lines(path)} ORDER BY number) TO {_quoted(draft)} (FORMAT parquet)")
    draft.replace(target)
    path.unlink()


def bound(folder: Path, most_bytes: int) -> None:
    """Remove the oldest Parquet files until the rest has at most ``most_bytes``; the counts of their servers say so."""
    files = sorted(folder.glob("*.parquet"), key=lambda path: path.stat().st_mtime)
    size = sum(path.stat().st_size for path in files)
    for path in files[:-1]:
        if size <= most_bytes:
            return
        size -= path.stat().st_size
        with _connected() as connection, Counts(_count_path(path)) as counts:
            found = connection.execute(f"SELECT count(*) FROM read_parquet({_quoted(path)})").fetchone()
            path.unlink()
            counts.set(REMOVED, counts.get(REMOVED) + (int(found[0]) if found else 0))


def _count_path(part: Path) -> Path:
    return part.with_name(f"{part.stem.rpartition('-')[0]}.count")


def needs_duckdb() -> None:
    """Raise MissingExtra without DuckDB."""
    import importlib.util

    if importlib.util.find_spec("duckdb") is None:
        raise MissingExtra(key="--log", package="duckdb", extra="data")


@contextmanager
def _connected() -> Iterator[DuckDBPyConnection]:
    """DuckDB, one thread: it stands behind those who answer."""
    needs_duckdb()
    import duckdb

    with duckdb.connect(config={"threads": 1}) as connection:
        yield connection
