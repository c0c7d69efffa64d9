"""Convert weights of the released PyTorch code to runs, and back."""
