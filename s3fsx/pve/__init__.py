"""s3fsx as a storage of Proxmox VE: setting it up, removing it, taking it over from other plugins."""
