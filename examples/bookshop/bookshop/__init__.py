"""A small online bookshop, to show flux at work."""
