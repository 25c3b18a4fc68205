"""An object store as the file system sees it: its operations, its state, and whether it holds what was written."""
