"""Running pipelines, until they end or are told to."""
