"""Measuring the time and memory of our network and of the same network in other software, side by side.

Every implementation goes from the same image to its label map, by the code that its own users evaluate with.
"""
