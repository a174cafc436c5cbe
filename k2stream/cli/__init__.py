"""The command line `k2`: thin commands, a module for each group; what they do is in the modules that they import when they run."""

from k2stream.cli.root import app, main

__all__ = ["app", "main"]
