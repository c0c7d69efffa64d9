"""Codes, losses and configuration: everything else is built on these."""
