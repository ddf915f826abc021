"""The command line: `ct-adam COMMAND`."""

from .main import entry as entry
from .main import main as main
