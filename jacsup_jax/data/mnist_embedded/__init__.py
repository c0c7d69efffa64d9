"""Holds the four original files of MNIST, see `mnist`."""
