"""How the product's native parts are fetched, verified, built and cached.

Standard library only: it runs before anything is installed, under the Python that will own
the virtual environment.
"""
