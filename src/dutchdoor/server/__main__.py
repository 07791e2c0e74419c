"""`python -m dutchdoor.server` is `dutchdoor`."""

from dutchdoor.server import main

if __name__ == "__main__":
    main()
