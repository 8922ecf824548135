"""What the networks are: Linen modules that are checked as they are built."""

from flax import linen as nn

from jaxgen import intervals


class Network(nn.Module):
    """A Linen module whose numbers are refused, as it is built, outside of the intervals that its fields declare."""

    def __post_init__(self) -> None:
        intervals.check(self)
        super().__post_init__()
