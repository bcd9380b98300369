"""The model that each peer serves: a function from a float64 batch to integer labels."""

import os

import numpy as np

MODELS = os.environ["BENCH_MODELS"]


def load():
    """scikit-learn's pipeline, or the ONNX of it if ``BENCH_ONNX`` is 1."""
    if os.environ.get("BENCH_ONNX") == "1":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(f"{MODELS}/lr.onnx", options)
        name = session.get_inputs()[0].name
        label = [session.get_outputs()[0].name]
        return lambda x: session.run(label, {name: np.asarray(x, dtype=np.float32)})[0]
    import joblib

    return joblib.load(f"{MODELS}/lr.joblib").predict
