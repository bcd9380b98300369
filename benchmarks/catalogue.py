"""The peers, each in a few settings; the best of them counts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

from benchmarks import environments
from benchmarks.paths import CACHE, HERE, LOGS, MODELS
from benchmarks.processes import free_port
from benchmarks.served import Served

APPS = HERE / "peers"


def _env(onnx: bool, **settings: str) -> dict[str, str]:
    return {
        "BENCH_MODELS": str(MODELS),
        "BENCH_ONNX": "1" if onnx else "0",
        "PYTHONPATH": str(APPS),
        "OMP_NUM_THREADS": "1",
    } | settings


def _prediction(answer: dict[str, Any]) -> object:
    return answer["prediction"]


def fastapi(onnx: bool) -> list[Served]:
    """uvicorn on uvloop and httptools; on the loop or on threads; one worker or two."""
    python = environments.python("fastapi")
    found = []
    for on_loop in ("0", "1"):
        for workers in ("1", "2"):
            port = free_port()
            command = [
                str(python), "-m", "uvicorn", "fastapi_app:app", "--port", str(port), "--loop", "uvloop",
                "--http", "httptools", "--workers", workers, "--no-access-log", "--log-level", "warning",
            ]  # fmt: skip
            setting = f"{'async' if on_loop == '1' else 'sync'} endpoint, {workers} workers"
            env = _env(onnx, BENCH_ASYNC=on_loop)
            found.append(
                Served("fastapi", setting, command, port, "/predict", "features", _prediction, env)
            )
    return found


def mosec(onnx: bool) -> list[Served]:
    """Batches of 64 that wait up to 1 ms, or one at a time; one worker or two."""
    python = environments.python("mosec")
    found = []
    for batch, workers in (("64", "1"), ("64", "2"), ("1", "1"), ("1", "2")):
        port = free_port()
        env = _env(onnx, BENCH_BATCH=batch, BENCH_WORKERS=workers, BENCH_WAIT_MS="1")
        command = [
            str(python),
            str(APPS / "mosec_app.py"),
            "--port",
            str(port),
            "--log-level",
            "warning",
        ]
        setting = f"batch {batch}, {workers} workers"
        found.append(
            Served("mosec", setting, command, port, "/inference", "features", _prediction, env)
        )
    return found


def litserve(onnx: bool) -> list[Served]:
    """Batches of 64 that wait up to 1 ms, or one at a time; one worker or two."""
    python = environments.python("litserve")
    found = []
    for batch, workers in (("64", "1"), ("1", "1"), ("1", "2")):
        port = free_port()
        env = _env(onnx, BENCH_BATCH=batch, BENCH_WORKERS=workers, PORT=str(port))
        command = [str(python), str(APPS / "litserve_app.py")]
        setting = f"batch {batch}, {workers} workers"
        found.append(
            Served("litserve", setting, command, port, "/predict", "features", _prediction, env)
        )
    return found


def mlserver(onnx: bool) -> list[Served]:
    """No inference workers (its fastest); with and without adaptive batching."""
    python = environments.python("mlserver")
    found = []
    for batch in (1, 64):
        port = free_port()
        folder = CACHE / "work" / f"mlserver-{'onnx' if onnx else 'sklearn'}-{batch}"
        (folder / "sk").mkdir(parents=True, exist_ok=True)
        server = {"debug": False, "http_port": port, "grpc_port": free_port(), "parallel_workers": 0,
                  "metrics_port": free_port(), "logging_settings": None}  # fmt: skip
        model: dict[str, object] = {
            "name": "sk",
            "implementation": "mlserver_onnx.OnnxModel"
            if onnx
            else "mlserver_sklearn.SKLearnModel",
            "parameters": {"uri": str(MODELS / "lr.joblib"), "version": "v1"},
        }
        if batch > 1:
            model |= {"max_batch_size": batch, "max_batch_time": 0.002}
        (folder / "settings.json").write_text(json.dumps(server))
        (folder / "sk" / "model-settings.json").write_text(json.dumps(model))
        command = [str(python.parent / "mlserver"), "start", str(folder)]
        found.append(
            Served(
                "mlserver",
                f"batch {batch}",
                command,
                port,
                "/v2/models/sk/infer",
                "mlserver",
                lambda answer: answer["outputs"][0]["data"][0],
                _env(onnx),
            )
        )
    return found


def bentoml(onnx: bool) -> list[Served]:
    """With and without adaptive batching; one worker or two."""
    python = environments.python("bentoml")
    found = []
    for batch, workers in (("64", "1"), ("1", "1"), ("1", "2")):
        port = free_port()
        env = _env(onnx, BENCH_BATCH=batch, BENCH_WORKERS=workers, BENTOML_DO_NOT_TRACK="1")
        env["BENTOML_HOME"] = str(CACHE / "work" / "bentoml")
        command = [
            str(python), "-m", "bentoml", "serve", "bentoml_app:Predict", "--port", str(port),
            "--host", "127.0.0.1",
        ]  # fmt: skip
        found.append(
            Served(
                "bentoml",
                f"batch {batch}, {workers} workers",
                command,
                port,
                "/predict",
                "bento",
                lambda answer: answer[0],
                env,
                APPS,
            )
        )
    return found


def mlflow(onnx: bool) -> list[Served]:
    """`mlflow models serve` with one worker or two."""
    python = environments.python("mlflow")
    folder = CACHE / "work" / f"mlflow-{'onnx' if onnx else 'sklearn'}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not (folder / "MLmodel").exists():
        with (LOGS / "mlflow-save.log").open("wb") as log:
            subprocess.run(
                [str(python), str(APPS / "mlflow_save.py"), str(folder)],
                env=_env(onnx),
                check=True,
                stdout=log,
                stderr=log,
            )
    found = []
    for workers in ("1", "2"):
        port = free_port()
        command = [
            str(python), "-m", "mlflow", "models", "serve", "-m", str(folder), "--env-manager", "local",
            "-w", workers, "-p", str(port),
        ]  # fmt: skip
        env = _env(onnx, PATH=f"{python.parent}:/usr/bin:/bin", HOME=str(folder.parent))
        found.append(
            Served(
                "mlflow",
                f"{workers} workers",
                command,
                port,
                "/invocations",
                "mlflow_tensor" if onnx else "mlflow",
                _mlflow_label,
                env,
                folder.parent,
            )
        )
    return found


def _mlflow_label(answer: dict[str, Any]) -> object:
    predictions = answer["predictions"]
    # The ONNX flavour names its outputs; scikit-learn's has one.
    return predictions["label"][0] if isinstance(predictions, dict) else predictions[0]


def ray(onnx: bool) -> list[Served]:
    """With and without batching; one replica (a second one has no core left)."""
    python = environments.python("ray")
    found = []
    for batch in ("64", "1"):
        port = free_port()
        env = _env(onnx, BENCH_BATCH=batch, PORT=str(port), RAY_USAGE_STATS_ENABLED="0")
        command = [str(python), str(APPS / "ray_app.py")]
        found.append(
            Served("ray", f"batch {batch}", command, port, "/", "features", _prediction, env)
        )
    return found


def nginx(onnx: bool) -> list[Served]:
    """A constant answer: the floor of HTTP itself, whatever the model."""
    del onnx
    port = free_port()
    folder = CACHE / "work" / "nginx"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nginx.conf").write_text(
        f"worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log /dev/null;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; client_body_temp_path {folder}; keepalive_requests 100000000;\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ return 200 '{{\"prediction\":0}}'; }} }} }}\n"
    )
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    return [Served("nginx", "constant", command, port, "/", "features", None)]


PEERS: dict[str, Callable[[bool], list[Served]]] = {
    "fastapi": fastapi,
    "mosec": mosec,
    "mlserver": mlserver,
    "litserve": litserve,
    "bentoml": bentoml,
    "mlflow": mlflow,
    "ray": ray,
    "nginx": nginx,
}
#: The floor is no peer: it predicts nothing.
FLOOR = "nginx"
