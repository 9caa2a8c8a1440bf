"""What of a bag an alignment is made from: its pairs, and how its cameras move."""

from __future__ import annotations

from vifa_ros.bags.align_results import Tell
from vifa_ros.bags.camera_pairs import CameraTopics, PairReader
from vifa_ros.bags.opening import Bag
from vifa_ros.compressed import view_compressed
from vifa_ros.conversions import ConversionError, read_stamp, view_image
from vifa_ros.pairing import ARRIVAL, VISIBLE, PairingSettings
from vifa_runtime.registration_frames import Frames, RegistrationError
from vifa_runtime.thermal import ThermalError
from vifa_runtime.time_offset import Motion, TimeOffset, find_offset


def frames_of_bag(bag: Bag, topics: CameraTopics, pairing: PairingSettings, most: int, tell: Tell) -> Frames:
    """At most so many pairs of an open bag, evenly spread over its time; images that cannot be decoded are left out.

    After each of evenly spread times the first pair is taken that shows something, and not the scene of the one before.

    Raises:
        BagError: the bag is damaged.
        RegistrationError: images of several sizes, or no pair.
    """
    frames = Frames()
    reader = PairReader(bag, topics, pairing)
    problem = ""
    for pair in reader:
        tell(reader.read, reader.total)
        since = (pair.arrival - bag.start) * 1e-9
        if len(frames) >= most or since < len(frames) * bag.duration / most:
            continue
        try:
            frames.add(pair.visible, pair.thermal, f"the pair at {since:.2f} s")
        except (ConversionError, ThermalError) as error:
            problem = str(error)
    if not (len(frames) or frames.blank):
        dropped = {f"{stream} {why}": n for stream, c in reader.counts.items() for why, n in c.dropped.items() if n}
        why = ", ".join(f"{n} {reason}" for reason, n in dropped.items()) or problem or "no frames"
        raise RegistrationError(f"{bag.path} gives no pair ({why}); check its stamps, --slop and --thermal-offset")
    return frames


def measure_offset(
    bag: Bag, topics: CameraTopics, stamps: str, largest: float, seconds: float, tell: Tell
) -> TimeOffset:
    """The time offset between the cameras of an open bag; see `find_offset`.

    Args:
        stamps: `header` or `arrival`: by which frames are going to be paired.
        largest: offset that is looked for, seconds.
        seconds: how much of the bag is looked at, from its start; 0 for all of it.

    Raises:
        BagError: the bag is damaged.
        TimeOffsetError: it is not determined.
    """
    motions = {stream: Motion() for stream in topics.images.values()}
    total = sum(bag.topics[topic].count for topic in topics.images)
    for number, (topic, arrival, message) in enumerate(bag.messages(topics.images)):
        tell(number, total)
        if 0 < seconds < (arrival - bag.start) * 1e-9:
            break
        stream = topics.images[topic]
        view = view_compressed if bag.topics[topic].type.endswith("CompressedImage") else view_image
        try:
            seen = view(message, stream)
            pixels = seen.to_rgb() if stream == VISIBLE else seen.to_thermal()
        except ConversionError:
            continue  # as the node does, which counts it
        motions[stream].add(pixels, arrival if stamps == ARRIVAL else read_stamp(message.header))
    return find_offset(motions[VISIBLE], next(m for stream, m in motions.items() if stream != VISIBLE), largest)
