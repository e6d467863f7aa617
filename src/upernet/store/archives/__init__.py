"""Files of tensors, read without executing anything in them.

A file's structure is checked first (`zip_format`, `legacy_format`): no entry may be compressed, shared or longer than
the file. Its pickle becomes inert descriptions (`pickles`, `globals`, `descriptions`) within a `budget` of steps. The
tensors and arrays that these claim are compared with the data in the file and with what a UPerNet could need. Only if
all of it fits are tensors made (`building`). A safetensors file is checked by its header (`safetensors_format`).
"""

from upernet.store.archives.descriptions import Placeholder
from upernet.store.archives.reader import read_checkpoint, read_index, read_safetensors, read_settings

__all__ = ["Placeholder", "read_checkpoint", "read_index", "read_safetensors", "read_settings"]
