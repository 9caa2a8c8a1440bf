"""Bags without ROS: opened, recorded from folders, extracted into folders, evaluated, and used to align cameras."""
