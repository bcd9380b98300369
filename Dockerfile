# Two stages: build a wheel and install it with its runtimes, then copy only the result.
FROM python:3.12-slim AS build
WORKDIR /src
# Which runtimes the image can serve: any of sklearn, xgboost, lightgbm, onnx, torch, mlflow.
ARG EXTRAS=sklearn,xgboost,lightgbm,onnx
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN python -m venv /opt/hotswap \
 && /opt/hotswap/bin/pip install --no-cache-dir ".[${EXTRAS}]"

FROM python:3.12-slim
# LightGBM and XGBoost link to OpenMP's runtime.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /state hotswap \
 && install -d -o hotswap /state /models
COPY --from=build /opt/hotswap /opt/hotswap
ENV PATH=/opt/hotswap/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOTSWAP_STATE_DIR=/state \
    HOTSWAP_HOST=0.0.0.0
USER hotswap
WORKDIR /state
VOLUME /state
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=2s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/v2/health/live', timeout=2)"]
# Exec form: signals reach the server itself. It refuses to start here without HOTSWAP_TOKEN.
ENTRYPOINT ["hotswap"]
CMD ["serve", "/models"]
