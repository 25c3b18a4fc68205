"""FUSE: requests of the kernel, answers to it."""
