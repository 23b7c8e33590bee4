"""The folder that an image is built from: linted, and, where the tools are there, built without an engine and asked."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest
import yaml

from experiments import cli
from experiments.package import package
from experiments.run import simulate
from fl.bundle import Bundle
from fl.packaging import image

TOOLS = ("debootstrap", "buildah", "pip")
RELEASE = "bookworm"


def console(name: str) -> str:
    """A program of this environment. Skips where it is not installed."""
    path = Path(sys.executable).with_name(name)
    if not path.is_file():
        pytest.skip(f"{name} is not installed")
    return str(path)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    from experiments.compose import compose

    folder = tmp_path_factory.mktemp("image")
    few = ("dataset=heart_disease", "engine=inprocess", "num_rounds=1", "server.tensorboard=false")
    simulate(compose([*few, f"run_dir={folder / 'heart'}", f"registry_dir={folder / 'registry'}"]))
    return package(
        "heart:1",
        formats=["onnx"],
        output=folder / "bundles",
        registry=folder / "registry",
        key=None,
        override=None,
    )


@pytest.fixture(scope="module")
def folder(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("made") / "image"
    assert cli.run(["bundle", "image", str(bundle.folder), "--output", str(place)]) == 0
    return place


@pytest.mark.slow
def test_the_linters_find_nothing(folder: Path) -> None:
    for command in (
        [console("hadolint"), str(folder / "Dockerfile")],
        [console("kubernetes-validate"), "--strict", str(folder / "kubernetes.yaml")],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_nobody_is_root_and_everything_has_its_release(folder: Path, bundle: Bundle) -> None:
    docker = (folder / "Dockerfile").read_text()
    assert "ARG BASE=" in docker and "\nFROM ${BASE}\n" in docker
    assert f"\nUSER {image.USER}:{image.USER}\n" in docker
    assert "\nHEALTHCHECK " in docker
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert all(line.count("==") == 1 for line in lines)
    names = {line.partition("==")[0] for line in lines}
    assert {"fastapi", "onnxruntime", "starlette", "uvicorn"} <= names
    assert not names & {"torch", "ray", "flwr"}
    deployment, service, budget = yaml.safe_load_all((folder / "kubernetes.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert container["image"].endswith(bundle.id[:12])
    selected = deployment["spec"]["template"]["metadata"]["labels"].items()
    for selector in (service["spec"]["selector"], budget["spec"]["selector"]["matchLabels"]):
        assert selector.items() <= selected


@pytest.mark.slow
def test_the_same_bundle_gives_the_same_folder_and_one_that_is_there_stays(
    folder: Path, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = image.write(bundle, tmp_path / "again")
    files = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert files == {p.relative_to(again): p.read_bytes() for p in again.rglob("*") if p.is_file()}
    assert cli.run(["bundle", "image", str(bundle.folder), "--output", str(again)]) == 2
    assert "allowed: a folder that is not there yet" in capsys.readouterr().err


@pytest.mark.slow
def test_what_the_image_holds_answers(folder: Path, tmp_path: Path) -> None:
    """The folder's own sources and bundle alone, by the command that the image starts, in an empty folder."""
    entry = ["-c", "from experiments.cli import main; main()", "serve", str(folder / "bundle"), "--port", "0"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder / "app"), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        [sys.executable, *entry], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            answer = httpx.post(f"{url}/predict", json={"rows": [{"age": 63}]})
            assert answer.status_code == 200, answer.text
            assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text()
        finally:
            process.terminate()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_image_is_built_without_an_engine_and_answers(folder: Path, tmp_path: Path) -> None:
    """debootstrap makes the base, buildah the image, each step in a chroot; the image's own command is then started."""
    missing = [tool for tool in TOOLS if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing or os.geteuid():
        pytest.skip(f"needs root and {', '.join(TOOLS)}; missing: {', '.join(missing) or 'root'}")
    wheels, base = tmp_path / "wheels", tmp_path / "base"
    pip = ["pip", "download", "--quiet", "--only-binary", ":all:", "--requirement", str(folder / "requirements.txt")]
    run([*pip, "--dest", str(wheels)], "the wheels cannot be had")
    with_python = "--include=python3-venv,ca-certificates"
    run(["debootstrap", "--variant=minbase", with_python, RELEASE, str(base)], "the base cannot be had")
    (tmp_path / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    store = ("--root", str(tmp_path / "store"), "--runroot", str(tmp_path / "run"), "--storage-driver", "vfs")

    def buildah(*words: str) -> str:
        return run(["buildah", *store, *words])

    empty = buildah("from", "scratch")
    buildah("copy", "--quiet", empty, str(base), "/")
    buildah("commit", "--quiet", "--rm", empty, "localhost/base")
    volumes = [f"--volume={wheels}:/wheels:ro", f"--volume={tmp_path / 'pip.conf'}:/etc/pip.conf:ro"]
    words = (
        "--format",
        "docker",
        "--isolation",
        "chroot",
        "--build-arg",
        "BASE=localhost/base",
        *volumes,
        "--tag",
        "meadow-serve",
    )
    buildah("bud", *words, str(folder))
    made = buildah("from", "localhost/meadow-serve")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    inside = ["/srv/environment/bin/python", "-c", "from experiments.cli import main; main()", "serve", "/srv/bundle"]
    started = ["buildah", *store, "run", "--isolation", "chroot", made, "--", *inside, "--port", str(port)]
    process = subprocess.Popen(started, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        eventually(lambda: httpx.get(f"http://127.0.0.1:{port}/v2/health/ready").status_code == 200, process)
        answer = httpx.post(f"http://127.0.0.1:{port}/predict", json={"rows": [{"age": 63}]})
        assert answer.status_code == 200, answer.text
    finally:
        process.terminate()
        process.communicate(timeout=30)


def run(command: Sequence[str], skip: str | None = None) -> str:
    """What a command prints. With ``skip`` its failure is a reason to skip: the network is not ours to test."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=900, env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL
    )
    if done.returncode and skip:
        pytest.skip(f"{skip}: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout.strip()


def eventually(holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        assert process.poll() is None, process.communicate()[0]
        try:
            if holds():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError("it never answered")
