"""Trains the fusion networks that `vifa_runtime` runs. Needs torch, never ROS."""
