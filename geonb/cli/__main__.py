"""`python -m geonb.cli`."""

from geonb.cli.app import main

main()
