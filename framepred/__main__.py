"""`python -m framepred`."""

from framepred.cli import main

main()
