"""Names to uint8 images on the device, splits and views. Importing this package does not import torch.

The names are here; what needs torch is in the modules: :mod:`~sweetspot.data.images` (the values),
:mod:`~sweetspot.data.split`, :mod:`~sweetspot.data.views`, :mod:`~sweetspot.data.seeding`.
"""

from sweetspot.data.registry import DataSetInfo, describe, info, names, open_dataset

__all__ = ["DataSetInfo", "describe", "info", "names", "open_dataset"]
