"""``python -m rkstore``: the same as ``rkstore``, where the command is not on the path."""

from rkstore.cli import main

if __name__ == "__main__":
    main()
