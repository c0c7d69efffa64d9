"""MNIST with its four original files shipped inside the package."""
