"""Makes the training data: pairs of generator latents and image embeddings, in seeded shards."""
