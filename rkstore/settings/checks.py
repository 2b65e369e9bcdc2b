"""What several commands check of their options beyond types and bounds."""

from rkstore.errors import BadInput


def check_distinct(flag: str, given: tuple[str, ...]) -> None:
    """Raise BadInput if an option names the same thing twice."""
    for name in given:
        if given.count(name) > 1:
            raise BadInput(f"{flag} {name} is given {given.count(name)} times: give each once")


def check_device(device: str) -> None:
    """Raise BadInput unless a tensor of numbers can be made on that device."""
    import torch

    try:
        there = torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"device '{device}' is not available: {reason}") from None
    if there.is_meta:
        raise BadInput("the device meta has no numbers: it is for 'rkstore plan' alone")
