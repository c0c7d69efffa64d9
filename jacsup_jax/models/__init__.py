"""Models as linen modules, and how they are bound to their variables."""
