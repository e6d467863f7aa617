"""From a photograph of any size to the network, and back to answers of the photograph's size."""
