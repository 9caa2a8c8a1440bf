"""What goes wrong with bags. Apart from the rest, so that a command line knows it without loading rosbags."""

from importlib.util import find_spec


class BagError(ValueError):
    """A bag that cannot be read or written; the message names the file or topic, and the mend."""


def need_rosbags() -> None:
    """To be called before a module that imports rosbags.

    Raises:
        BagError: it is not installed.
    """
    if find_spec("rosbags") is None:
        raise BagError("bags need rosbags, which is not installed; pip install 'vifa-perception[bags]'")
