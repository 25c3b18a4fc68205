"""The daemon and what is told of it."""
