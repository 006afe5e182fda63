"""Which addresses a host name stands for, and whether they are the Internet's."""

import ipaddress
import socket
from typing import Any, NamedTuple

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal", ".lan", ".home.arpa")
_IPV4_BYTES = 4

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Address(NamedTuple):
    """What a socket is connected to."""

    family: int
    sockaddr: tuple[Any, ...]

    @property
    def public(self) -> bool:
        """Whether it is an address of the Internet."""
        return is_public(str(self.sockaddr[0]))


def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a host, in the order the system prefers.

    Raises:
        OSError: it has none, or cannot be asked for.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label that is too long or empty
        raise OSError(f"{host[:80]} is not a host name") from error
    return list(dict.fromkeys(Address(family, sockaddr) for family, _, _, _, sockaddr in found))


def is_public(text: str) -> bool:
    """Whether an address, and any address packed inside it, is one of the Internet."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return all(one.is_global and not one.is_multicast for one in _unpacked(address))


def _unpacked(address: IpAddress) -> list[IpAddress]:
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped:
        return [address.ipv4_mapped]
    inside: list[IpAddress] = [address]
    if address.sixtofour:
        inside.append(address.sixtofour)
    if address.teredo:
        inside.extend(address.teredo)
    if address in _NAT64 or int(address) >> 32 == 0:  # the second: IPv4-compatible, ::a.b.c.d
        inside.append(ipaddress.IPv4Address(address.packed[-_IPV4_BYTES:]))
    return inside


def looks_private(host: str) -> bool:
    """Whether the text alone says that a host is of this network: what a proxy would be asked for.

    Any spelling that the C library takes for an IPv4 address counts: 0x7f.1, 2130706433.
    """
    name = host.lower().rstrip(".")
    if name in ("localhost", "") or name.endswith(_LOCAL_SUFFIXES):
        return True
    try:
        return not is_public(socket.inet_ntoa(socket.inet_aton(name)))
    except OSError:
        return (":" in name or "." not in name) and not is_public(name)
