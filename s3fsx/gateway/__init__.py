"""``s3fsx gateway``: an S3 server over a directory. docs/GATEWAY.md says what it answers, docs/DESIGN.md how."""
