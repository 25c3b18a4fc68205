"""The S3 client: requests, connections, answers; what a store really does."""
