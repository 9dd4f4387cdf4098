# A server of one model. Build for CPUs, or for GPUs with the other base and index:
#   docker build --tag diffmiczoo .
#   docker build --tag diffmiczoo:cuda --build-arg BASE=nvidia/cuda:12.6.3-runtime-ubuntu24.04 \
#     --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 .
ARG BASE=python:3.12-slim
FROM ${BASE}
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=demo,dicom,serve
ARG MODEL=diffmicv2_ham10000

# CUDA's images have no Python of their own; of python:3.12-slim it is there.
RUN command -v python3 > /dev/null || (apt-get update && apt-get install --yes --no-install-recommends \
    python3 python3-venv && rm -rf /var/lib/apt/lists/*)
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
RUN pip install --no-cache-dir torch torchvision --index-url ${TORCH_INDEX}

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY diffmiczoo ./diffmiczoo
RUN pip install --no-cache-dir ".[${EXTRAS}]"

# The weights that ship come with the package. Others go into /weights, and MODEL is local-dir:/weights:
#   docker run --volume "$PWD/weights:/weights:ro" --env DIFFMICZOO_MODEL=local-dir:/weights …
RUN useradd --create-home --uid 10001 serve
USER serve
WORKDIR /home/serve
ENV DIFFMICZOO_MODEL=${MODEL} HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
EXPOSE 8000
HEALTHCHECK --interval=30s --start-period=60s CMD ["python3", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["diffmiczoo"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000", "--device", "auto"]
