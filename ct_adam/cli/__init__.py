"""The command line: `ct-adam COMMAND`."""

from .main import main as main
