"""What is kept: records, state tables, blobs, budget and secrets. Knows nothing of HTTP."""
