"""The engines that run the network, and the graph that they run."""
