"""Looking into the backups of a bucket, and getting them out, with or without a mount: what the commands ``ls``,
``backups``, ``show``, ``get``, ``verify``, ``prune``, ``thaw`` and ``drill`` do."""
