"""`python -m ganexport`."""

from ganexport.commands import main

main()
