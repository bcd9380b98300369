"""An MLServer runtime for the ONNX model (MLServer brings none)."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from predictor import load


class OnnxModel(MLModel):
    """onnxruntime with one thread."""

    async def load(self) -> bool:
        """Open the session."""
        self._predict = load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Rows to labels."""
        labels = self._predict(NumpyCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("predict", labels)]
        )
