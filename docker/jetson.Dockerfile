# JetPack 6 (L4T r36) with TensorRT and PyCUDA, ROS 2 from PyPI. Written, not run.
#   docker build -f docker/jetson.Dockerfile -t vifa:jetson .
#   docker run --rm --runtime=nvidia --net=host --ipc=host -v vifa-engines:/root/.cache/vifa vifa:jetson \
#       vifa bundle build nano-two-task --precision fp16 --size 640x480
#   docker run --rm --runtime=nvidia --net=host --ipc=host -v vifa-engines:/root/.cache/vifa vifa:jetson \
#       python -m vifa_ros.fusion_node --ros-args -p bundle:=nano-two-task -p backend:=tensorrt -p precision:=fp16
# For JetPack 7 take the base image of its L4T release.
FROM nvcr.io/nvidia/l4t-tensorrt:r10.3.0-devel

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-pip python3-venv python3-dev g++ git make python3-libnvinfer \
    && rm -rf /var/lib/apt/lists/*

COPY . /vifa
WORKDIR /vifa

# The robot's environment as on any machine; TensorRT is the system's, and PyCUDA is built against its CUDA.
RUN python3 scripts/environment.py robot --venv /opt/vifa \
    && echo /usr/lib/python3/dist-packages > "$(/opt/vifa/bin/python -c 'import site; print(site.getsitepackages()[0])')/tensorrt.pth" \
    && CPATH=/usr/local/cuda/include LIBRARY_PATH=/usr/local/cuda/lib64 /opt/vifa/bin/pip install --no-cache-dir pycuda

ENV PATH=/opt/vifa/bin:$PATH VIRTUAL_ENV=/opt/vifa FASTRTPS_DEFAULT_PROFILES_FILE=/vifa/config/fastdds.xml
CMD ["vifa", "bench", "--backend", "tensorrt", "--precision", "fp16"]
