"""The file system: names and content on an object store, without FUSE and without boto3."""
