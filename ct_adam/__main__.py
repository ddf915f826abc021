"""`python -m ct_adam COMMAND`, where the script `ct-adam` is not on the path."""

from .cli import entry

if __name__ == "__main__":
    entry()
