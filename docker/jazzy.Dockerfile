# ROS 2 Jazzy, ONNX Runtime on the CPU. Written, not run.
#   docker build -f docker/jazzy.Dockerfile -t vifa:jazzy .
#   docker run --rm --net=host --ipc=host vifa:jazzy visible:=/camera/image_raw thermal:=/flir/image_raw
FROM ros:jazzy-ros-base

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-pip ros-jazzy-cv-bridge ros-jazzy-vision-msgs \
    && rm -rf /var/lib/apt/lists/*

# What has no rosdep key.
RUN pip install --break-system-packages --no-cache-dir onnx onnxruntime

COPY . /workspace/src/vifa
WORKDIR /workspace
RUN . /opt/ros/jazzy/setup.sh \
    && apt-get update \
    && rosdep install --from-paths src --ignore-src -y \
    && rm -rf /var/lib/apt/lists/* \
    && colcon build --packages-select vifa

# Images need a profile with room for them; see docs/fusion_node.md.
ENV FASTRTPS_DEFAULT_PROFILES_FILE=/workspace/src/vifa/config/fastdds.xml
ENTRYPOINT ["/bin/bash", "-c", "source install/setup.bash && exec ros2 launch vifa vifa.launch.py \"$@\"", "--"]
