"""Drawn faces, made by the package itself."""
