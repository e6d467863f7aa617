"""Files of tensors, read without executing anything in them."""
