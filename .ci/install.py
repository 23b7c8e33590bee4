"""Make the virtual environment .venv hold Meadow with the extras asked for; do nothing when it already does.

    python3 .ci/install.py ops [dev ...]

Reads pyproject.toml and constraints.txt, both by content: a changed date installs nothing. `.venv/.ready` is written
last and says what is there, so that an interrupted install, a moved folder or a package that somebody removed is seen
and mended. Standard library only, since it runs before anything is installed; pip's output goes to .venv/install.log.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
READY = VENV / ".ready"
LOG = VENV / "install.log"
OLDEST = (3, 11)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def stop(text: str) -> NoReturn:
    say(f"make: {text}")
    raise SystemExit(1)


def content_key() -> str:
    """A hash of everything that an install depends on, the folder included: scripts hold its path."""
    digest = hashlib.sha256(os.fsencode(ROOT))
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def version_of(python: str) -> tuple[int, int] | None:
    """(major, minor) of an interpreter, None if there is none of that name or it does not run."""
    try:
        done = subprocess.run(
            [python, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True, timeout=60
        )
        major, minor = done.stdout.split()
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return int(major), int(minor)


def find_python() -> str:
    """The interpreter named by PYTHON, else python3 if it is new enough, else the oldest one that is."""
    asked = os.environ.get("PYTHON")
    names = [asked] if asked else ["python3", "python3.11", "python3.12", "python3.13"]
    for name in names:
        version = version_of(name)
        if version is not None and version >= OLDEST:
            return name
    found = {name: version_of(name) for name in names}
    stop(f"Python 3.11 or newer is needed; looked at {found}. Name one with `make PYTHON=/path/to/python3.11`.")


def site_packages() -> Path:
    return next(VENV.glob("lib/python3*/site-packages"))


def entries() -> list[str]:
    return sorted(p.name for p in site_packages().iterdir() if p.name != "__pycache__")


def read_ready() -> dict[str, Any] | None:
    """What `.ready` says, or None where .venv is missing, unfinished, damaged or of another Python."""
    try:
        ready: dict[str, Any] = json.loads(READY.read_text())
        missing = set(ready["entries"]) - set(entries())
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None
    if not all(name.endswith(".dist-info") for name in missing) or not (VENV / "bin" / "fl").exists():
        return None
    if missing:
        ready["key"] = "other releases than those installed here"
    asked = os.environ.get("PYTHON")
    running = version_of(str(VENV_PYTHON))
    if running is None or (asked and version_of(asked) != running):
        return None
    return ready


def run_logged(command: list[str], *, what: str) -> None:
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("a") as log:
        log.write(f"$ {' '.join(command)}\n")
        log.flush()
        code = subprocess.run(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        ).returncode
    if code:
        # Folders of packages that pip only looked into are no reason.
        lines = [
            line for line in LOG.read_text(errors="replace").splitlines() if "is ignored: it is neither" not in line
        ]
        say("\n".join(lines[-30:]))
        stop(f"{what} failed with status {code}; the whole log is in {LOG.relative_to(ROOT)}")


def install(extras: list[str], *, fresh: bool) -> None:
    started = time.monotonic()
    if fresh:
        say("Installing Meadow into .venv. The first time takes a few minutes ...")
        READY.unlink(missing_ok=True)
        shutil.rmtree(VENV, ignore_errors=True)
        python = find_python()
        run_logged([python, "-m", "venv", str(VENV)], what="creating .venv")
    else:
        say("Updating .venv ...")
    pip = [str(VENV_PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    run_logged([*pip, "--constraint", "constraints.txt", "--editable", f".[{','.join(extras)}]"], what="installing")
    LOG.unlink()
    draft = READY.with_suffix(".tmp")
    draft.write_text(json.dumps({"key": content_key(), "extras": extras, "entries": entries()}))
    draft.replace(READY)
    say(f"Installed in {time.monotonic() - started:.0f} s.")


@contextlib.contextmanager
def lock() -> Iterator[None]:
    """One install at a time in this folder."""
    with (ROOT / ".venv.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(extras: list[str]) -> None:
    with lock():
        ready = read_ready()
        if ready is None:
            install(sorted(extras), fresh=True)
        elif ready["key"] != content_key() or not set(extras) <= set(ready["extras"]):
            install(sorted({*extras, *ready["extras"]}), fresh=False)


if __name__ == "__main__":
    try:
        main(sys.argv[1:] or ["ops"])
    except KeyboardInterrupt:
        raise SystemExit(130) from None
