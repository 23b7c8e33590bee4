"""A folder to build an image from, and manifests to run it by: a bundle behind `fl serve`, without torch.

Dockerfile         its base is an argument; whoever it runs as is not root; it knows when it is well
requirements.txt   what answers from a bundle, each at the release that is installed here
app/               our sources
bundle/            the model
kubernetes.yaml    a Deployment of two replicas, a Service before them, and one of them kept through a drain
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
import tempfile
from pathlib import Path

from fl.bundle import Bundle
from fl.errors import BadInput, MissingExtra
from fl.files import storing, sync_folder, write_bytes

SOURCES = ("fl", "conf", "experiments")
REQUIRED = ("fastapi", "numpy", "onnxruntime", "orjson", "prometheus-client", "safetensors", "typer", "uvicorn")
QUICKER = ("httptools", "uvloop")
SIGNED = ("cffi", "cryptography")
USER, PORT = 10001, 8080

DOCKERFILE = """\
# Any image with Python {python} and pip; buildah and docker take another by --build-arg BASE=...
ARG BASE=python:{python}-slim
FROM ${{BASE}}

LABEL org.opencontainers.image.title="meadow-serve" \\
      org.opencontainers.image.version="{version}" \\
      org.opencontainers.image.revision="{bundle}"

ENV PYTHONUNBUFFERED=1 \\
    PYTHONDONTWRITEBYTECODE=1 \\
    PYTHONPATH=/srv/app \\
    OMP_NUM_THREADS=1

COPY requirements.txt /srv/requirements.txt
RUN python3 -m venv /srv/environment \\
    && /srv/environment/bin/pip install --no-cache-dir --requirement /srv/requirements.txt
COPY app /srv/app
COPY bundle /srv/bundle

WORKDIR /srv
USER {user}:{user}
EXPOSE {port}
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \\
    CMD ["/srv/environment/bin/python", "-c", "{healthy}"]
ENTRYPOINT ["/srv/environment/bin/python", "-c", "from experiments.cli import main; main()", "serve"]
CMD ["/srv/bundle", "--host", "0.0.0.0", "--port", "{port}"]
"""

_HEALTHY = "import urllib.request as u; u.urlopen('http://127.0.0.1:{port}/v2/health/ready', timeout=2)"

KUBERNETES = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: meadow-serve
  labels: &labels
    app.kubernetes.io/name: meadow-serve
    app.kubernetes.io/version: "{bundle}"
spec:
  replicas: 2
  selector:
    matchLabels:
      app.kubernetes.io/name: meadow-serve
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxUnavailable: 0
      maxSurge: 1
  template:
    metadata:
      labels: *labels
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 20
      securityContext:
        runAsNonRoot: true
        runAsUser: {user}
        runAsGroup: {user}
        seccompProfile:
          type: RuntimeDefault
      containers:
        - name: serve
          image: meadow-serve:{bundle}
          imagePullPolicy: IfNotPresent
          ports:
            - name: http
              containerPort: {port}
          startupProbe:
            httpGet: &ready
              path: /v2/health/ready
              port: http
            periodSeconds: 1
            failureThreshold: 60
          readinessProbe:
            httpGet: *ready
            periodSeconds: 2
          livenessProbe:
            httpGet:
              path: /v2/health/live
              port: http
            periodSeconds: 10
            failureThreshold: 3
          lifecycle:
            preStop:
              exec:
                command: ["sleep", "3"]
          resources:
            requests:
              cpu: "1"
              memory: 256Mi
            limits:
              memory: 1Gi
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: ["ALL"]
          volumeMounts:
            - name: temporary
              mountPath: /tmp
      volumes:
        - name: temporary
          emptyDir:
            sizeLimit: 64Mi
---
apiVersion: v1
kind: Service
metadata:
  name: meadow-serve
  labels:
    app.kubernetes.io/name: meadow-serve
spec:
  selector:
    app.kubernetes.io/name: meadow-serve
  ports:
    - name: http
      port: 80
      targetPort: http
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: meadow-serve
spec:
  minAvailable: 1
  selector:
    matchLabels:
      app.kubernetes.io/name: meadow-serve
"""


def write(bundle: Bundle, folder: Path) -> Path:
    """Write the folder, whole or not at all; the same bundle and environment, the same bytes.

    Raises BadInput where the bundle has no ONNX file, or ``folder`` is there already; MissingExtra.
    """
    if "onnx" not in bundle.manifest["formats"]:
        allowed = "one with the format onnx: fl package --format onnx"
        raise BadInput(key="BUNDLE", got=str(bundle.folder), allowed=allowed)
    if folder.exists():
        raise BadInput(key="--output", got=str(folder), allowed="a folder that is not there yet")
    with storing(folder, site="bundle"):
        folder.parent.mkdir(parents=True, exist_ok=True)
    told = texts(bundle)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".image.") as beside:
        draft = Path(beside) / "draft"
        root = Path(__file__).resolve().parents[2]
        with storing(draft, site="bundle"):
            for package in SOURCES:
                ignored = shutil.ignore_patterns("__pycache__", "bench", "files", "pictures", "*.md")
                shutil.copytree(root / package, draft / "app" / package, ignore=ignored)
            shutil.copytree(bundle.folder, draft / "bundle")
        for name, text in told.items():
            write_bytes(draft / name, text.encode(), site="bundle")
        with storing(folder, site="bundle"):
            draft.chmod(0o755)
            draft.rename(folder)
            sync_folder(folder.parent)
    return folder


def texts(bundle: Bundle) -> dict[str, str]:
    """The files that are written rather than copied, by name."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    values = {"bundle": bundle.id[:12], "user": USER, "port": PORT}
    docker = DOCKERFILE.format(
        **values, python=python, version=_release("meadow-fl"), healthy=_HEALTHY.format(port=PORT)
    )
    return {
        "Dockerfile": docker,
        ".dockerignore": "kubernetes.yaml\n",
        "requirements.txt": requirements(signed=bundle.signed_by is not None),
        "kubernetes.yaml": KUBERNETES.format(**values),
    }


def requirements(*, signed: bool) -> str:
    """What the image installs: each package that is needed, and what it needs itself, as it is installed here."""
    waiting = [*REQUIRED, *QUICKER, *(SIGNED if signed else ())]
    found: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = _release(name)
        for line in importlib.metadata.requires(name) or ():
            needed = re.match(r"[A-Za-z0-9._-]+", line)
            if needed and ";" not in line:
                waiting.append(re.sub(r"[-_.]+", "-", needed[0]).lower())
    return "".join(f"{name}=={found[name]}\n" for name in sorted(found))


def _release(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingExtra(key="fl bundle image", package=name, extra="serve") from error
