"""Runs VIFA bundles: one visible-thermal pair in, results per task out. Needs neither ROS nor torch."""
