"""Copies between the host and the device that do not wait for the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the host to a device. A GPU copies it after what it was given before."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class HostCopy:
    """Copies of tensors on the host, which can be read after the device has computed them.

    The copies are started without waiting for the device.

    Args:
        tensors: tensors on one device. They may change afterwards.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._event = None
        if tensors[0].device.type == "cuda":
            self._copies = [
                torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(
                    tensor, non_blocking=True
                )
                for tensor in tensors
            ]
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(tensors[0].device))
        else:
            self._copies = [tensor.to("cpu", copy=True) for tensor in tensors]

    def read(self) -> list[Tensor]:
        """Wait until the copies are there, and return them. This is the only time a step waits."""
        if self._event is not None:
            self._event.synchronize()
        return self._copies
