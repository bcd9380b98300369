"""Write the model as an MLflow folder: `mlflow_save.py TARGET`."""

import os
import shutil
import sys

import mlflow

MODELS = os.environ["BENCH_MODELS"]
shutil.rmtree(sys.argv[1], ignore_errors=True)
if os.environ.get("BENCH_ONNX") == "1":
    import numpy as np
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    rows = Schema([TensorSpec(np.dtype("float32"), (-1, 30))])
    mlflow.onnx.save_model(
        onnx.load(f"{MODELS}/lr.onnx"), sys.argv[1], signature=ModelSignature(inputs=rows)
    )
else:
    import joblib

    mlflow.sklearn.save_model(
        joblib.load(f"{MODELS}/lr.joblib"), sys.argv[1], serialization_format="cloudpickle"
    )
