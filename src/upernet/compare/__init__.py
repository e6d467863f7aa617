"""What our network and the same one in other software cost, measured side by side.

All go from the same image to its label map, each by the code with which its own users evaluate.
"""
