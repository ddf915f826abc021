"""`ct-adam version`."""


def version() -> None:
    """Print the version."""
    from .. import __version__

    print(__version__)
