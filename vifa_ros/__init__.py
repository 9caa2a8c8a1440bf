"""ROS 2 around `vifa_runtime`: the fusion node, players, messages and the `vifa` command."""
