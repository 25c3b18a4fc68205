"""The gateway in front of another S3: requests are read, authorised, signed anew and passed on."""
