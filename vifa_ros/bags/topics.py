"""Names of the topics that `vifa record` writes, and by which what is in a bag is known as ground truth.

A message of ground truth belongs to the visible image whose header has the same stamp, and lies in its pixels.
"""

IMAGES = {"visible": "/visible/image_raw", "thermal": "/thermal/image_raw"}  # with /compressed behind it if they are
INFOS = {"visible": "/visible/camera_info", "thermal": "/thermal/camera_info"}
FRAMES = {"visible": "visible_camera", "thermal": "thermal_camera"}
TF_STATIC = "/tf_static"

# Boxes, vision_msgs/Detection2DArray: class_id is the name of the class, or its number where it has none; score 1.
DETECTIONS = "/ground_truth/detections"
MASK = "/ground_truth/mask"  # sensor_msgs/Image mono8, class ids, 255 unknown
LABEL_INFO = "/ground_truth/label_info"  # vision_msgs/LabelInfo: the names of the boxes' classes
MASK_LABEL_INFO = "/ground_truth/mask_label_info"  # likewise of the mask's
# std_msgs/Header: its frame_id is the name of the files from which the visible image of that stamp was recorded.
PAIR_NAME = "/ground_truth/pair_name"
