"""Run the command line: `python -m qala`."""

from qala.cli import main

if __name__ == "__main__":
    main()
