"""What is made from the files that a data set publishes, one file per data set. A new one needs its line here."""

from __future__ import annotations

from upernet.data.prepare.broden_plus import BrodenPlusFolder
from upernet.data.prepare.cityscapes import TrainIds
from upernet.data.prepare.preparation import Preparation
from upernet.data.prepare.voc_aug import VOCAug

PREPARATIONS: dict[str, type[Preparation]] = {
    "broden_plus": BrodenPlusFolder,
    "cityscapes": TrainIds,
    "voc_aug": VOCAug,
}
"""Name on the command line → the class that prepares the data set."""
