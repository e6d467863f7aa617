"""The common base of data sets that are folders of files."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

from upernet.data.items import Item, Listing
from upernet.data.search import subfolders
from upernet.data.source import Source
from upernet.errors import UserError


@dataclass(kw_only=True)
class FolderSource(Source):
    """A source whose images and label maps are found by their names below its folder."""

    @abstractmethod
    def list_split(self, split: str) -> Listing:
        """List the images of a split and the faults that file names show, by `examine`.

        Raises:
            UserError: If the split is missing.
        """

    def items(self, split: str) -> list[Item]:
        return self.list_split(split).checked()

    def listing(self, split: str) -> Listing:
        if type(self).items is not FolderSource.items:  # a subclass that chooses among the images
            return super().listing(split)
        return self.list_split(split)

    def find(self, subfolder: str, *endings: str) -> list[Path]:
        """Files below a sub-folder whose names have one of the endings, sorted by path, without hidden files.

        Raises:
            UserError: If the sub-folder is missing or holds no such file.
        """
        folder = self.folder / subfolder
        found = sorted(p for p in folder.rglob("*") if p.name.endswith(endings) and not p.name.startswith("."))
        if not found:
            fault = f"no file in it ends in {' or '.join(endings)}"
            if not folder.is_dir():
                others = ", ".join(p.name for p in subfolders(folder.parent))
                fault = "no such folder" + (f" (there are {others})" if others else "")
            raise UserError(f"{folder}: {fault}; in {self.folder}, {self.expectation}")
        return found
