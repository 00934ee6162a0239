"""`python -m shared.cli`: the `sluice` command without its script."""

from shared.cli import main

main()
