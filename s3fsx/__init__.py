"""s3fsx: an S3 bucket as a Proxmox VE directory storage."""

__version__ = "0.1.0"
