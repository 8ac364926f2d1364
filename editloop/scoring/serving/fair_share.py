"""How clients share what a server has: nobody holds more than is left for the others.

A client that is alone gets half of a capacity, two get a third each, n get one part in n + 1: whoever comes next finds
room. These are the dynamic thresholds of Choudhury and Hahne (1998, "Dynamic queue length thresholds for shared-memory
packet switches") with alpha = 1.
"""

import ipaddress
from collections import Counter

NETWORK_BITS = 64
"""Bits of an IPv6 address that tell clients apart: the rest is one customer's to choose."""


def client_of(host: str | None) -> str:
    """Return the name under which a client's holdings are counted: its IPv4 address, or its IPv6 network.

    Args:
        host: The address that a request comes from; None where the transport has none.
    """
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return host or ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address.packed, NETWORK_BITS), strict=False))


def within_share(amount: int, *, held: int, total: int, capacity: int) -> bool:
    """Return whether a client may take more of a capacity.

    Whoever holds nothing may take what is free; whoever holds something must leave as much as it then holds.

    Args:
        amount: What the client asks for.
        held: What it holds.
        total: What all clients hold, this one included.
        capacity: What there is.
    """
    left = capacity - total - amount
    return left >= 0 and (held == 0 or held + amount <= left)


class FairShare:
    """Who holds how much of one capacity."""

    def __init__(self, capacity: int):
        """Create it; nobody holds anything.

        Args:
            capacity: What all clients together may hold.
        """
        self.capacity = capacity
        self.holdings: Counter[str] = Counter()
        """What each client holds, of those that hold something."""

    @property
    def total(self) -> int:
        """What all clients hold."""
        return self.holdings.total()

    def fits(self, client: str, amount: int) -> bool:
        """Return whether a client may take more.

        Args:
            client: The client, by `client_of`.
            amount: What it asks for.
        """
        return within_share(amount, held=self.holdings[client], total=self.total, capacity=self.capacity)

    def take(self, client: str, amount: int) -> None:
        """Count what a client takes; `fits` is the caller's to ask.

        Args:
            client: The client.
            amount: What it takes; negative for what it gives back.
        """
        self.holdings[client] += amount
        if not self.holdings[client]:
            del self.holdings[client]
