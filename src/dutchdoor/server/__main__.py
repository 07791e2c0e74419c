"""`python -m dutchdoor.server` is `dutchdoor`."""

from dutchdoor.server.cli import main

if __name__ == "__main__":
    main()
