"""The commands of ``s3fsx``, a module each: its arguments and what it does. ``cli`` puts them together."""
