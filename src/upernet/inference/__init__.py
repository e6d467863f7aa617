"""From images of any size to the network's logits, and from logits to answers at any size."""
