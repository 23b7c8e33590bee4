"""`fl resume`: go on with a run after its last committed round."""

from __future__ import annotations

from pathlib import Path

from experiments.config_file import APP_CONFIG, CONFIG
from fl.errors import BadInput


def resume(run_dir: Path) -> Path:
    """Go on with the run in ``run_dir``; returns its folder, absolute. Raises BadInput where there is no run."""
    folder = run_dir.expanduser().absolute()
    if (folder / APP_CONFIG).is_file():
        from experiments.app_run import resume_app

        return resume_app(folder)
    if not (folder / CONFIG).is_file():
        what = "holds no config.yaml" if folder.is_dir() else "is not there"
        allowed = "the folder of a run, as the last line of `fl simulate` names it"
        raise BadInput(key="RUN_DIR", got=f"{run_dir}, which {what}", allowed=allowed)
    from experiments.run import resume as go_on

    return go_on(folder)
