"""Image sets by name, and the batches made of them."""
