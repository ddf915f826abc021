"""The version, where packaging, the command line and generated files read it."""

__version__ = "0.1.0"
