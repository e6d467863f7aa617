"""A picture in, answers and pictures out."""
