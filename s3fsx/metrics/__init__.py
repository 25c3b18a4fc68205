"""What a mount counts, and how Prometheus reads it. Everything is made from the document of ``s3fsx status``."""
