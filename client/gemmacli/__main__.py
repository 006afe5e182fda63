"""`python -m gemmacli` is `gemma`."""

from gemmacli.main import main

main()
