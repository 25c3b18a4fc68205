"""Buckets as directories, objects as plain files in them, what S3 knows of them beside in ``.s3fsx-gateway``."""
