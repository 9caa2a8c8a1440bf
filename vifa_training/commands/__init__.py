"""One file a command of `vifa-train`; `vifa_training/cli.py` puts them together."""
