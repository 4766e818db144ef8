"""`python -m nvc.cli` is `nvc`."""

from .main import main

main()
