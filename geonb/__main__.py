"""`python -m geonb` is `geonb`, for an environment whose scripts are not on the path."""

from geonb.cli.app import main

if __name__ == "__main__":
    main()
