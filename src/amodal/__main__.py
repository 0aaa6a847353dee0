"""`python -m amodal` is the command `amodal`."""

from amodal.cli import main

if __name__ == "__main__":
    main()
