"""`python -m z0.bench` is `z0 bench`."""

from .cli import app

if __name__ == "__main__":
    app()
