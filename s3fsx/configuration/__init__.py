"""Settings: their schema, where they come from, and how a person reads them."""
