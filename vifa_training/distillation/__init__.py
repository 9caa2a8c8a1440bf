"""The paper's two stages: one file each, each step a line of its method."""
