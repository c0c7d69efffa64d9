"""Faces in the layout that CelebA comes in, from a folder of the user."""
