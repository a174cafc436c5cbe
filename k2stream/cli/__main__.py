"""`python -m k2stream.cli`: what `k2` is where the script is not on the path."""

from k2stream.cli.root import main

main()
