"""What is on the local disk: journal, metadata cache, block cache."""
