"""`fl resume`: go on with a run after its last committed round."""

from __future__ import annotations

from pathlib import Path

from fl.errors import BadInput


def resume(run_dir: Path) -> Path:
    """Go on with the run in ``run_dir``; returns its folder, absolute. Raises BadInput where there is no run."""
    folder = run_dir.expanduser().absolute()
    if (folder / "app.yaml").is_file():
        from experiments.app_run import resume_app

        return resume_app(folder)
    if not (folder / "config.yaml").is_file():
        what = "holds no config.yaml" if folder.is_dir() else "is not there"
        allowed = "the folder of a run, as the last line of `fl simulate` names it"
        raise BadInput(key="RUN_DIR", got=f"{run_dir}, which {what}", allowed=allowed)
    from experiments.run import resume as go_on

    return go_on(folder)
