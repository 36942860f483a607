"""Connections of an Ardour session: each one is written at both of its ends."""

from __future__ import annotations

from collections.abc import Collection

from lxml import etree

from revithion_bridge.daw_files.ardour_document import ArdourDocument
from revithion_bridge.daw_files.ardour_routes import ports_of
from revithion_bridge.daw_files.xml_tree import Element


def feed(document: ArdourDocument, route: Element, target: Element, known: Collection[Element]) -> bool:
    """Leads a route's outputs to a bus and nowhere else; whether anything changed.

    A mono route goes to both sides of a stereo bus, and channels that the bus does not have go to those that it has:
    so the sum stays exact. Where people have led a route to a bus of their own, that stays as it is.

    Args:
        document: The session.
        route: Whose outputs are led.
        target: What they are to feed.
        known: The strips of the plan and the master; a route that feeds another one was led there by people.
    """
    outputs, inputs = ports_of(route, "Output"), ports_of(target, "Input")
    ours = {_name(port) for strip in known for port in ports_of(strip, "Input")}
    now = {(_name(port), other.get("other", "")) for port in outputs for other in port.findall("Connection")}
    if any(other not in ours for _, other in now):
        return False
    wanted: set[tuple[str, str]] = set()
    if outputs and inputs:
        count = len(outputs) if len(outputs) > 1 else min(2, len(inputs))
        wanted = {(_name(outputs[n % len(outputs)]), _name(inputs[n % len(inputs)])) for n in range(count)}
    for output, other in now - wanted:
        _disconnect(document, output, other)
        _disconnect(document, other, output)
    for output, other in sorted(wanted - now):
        _connect(outputs, output, other)
        _connect(inputs, other, output)
    return now != wanted


def _name(port: Element) -> str:
    return port.get("name", "")


def _connect(ports: list[Element], name: str, other: str) -> None:
    port = next(port for port in ports if _name(port) == name)
    if all(connection.get("other") != other for connection in port):
        etree.SubElement(port, "Connection", {"other": other})


def _disconnect(document: ArdourDocument, name: str, other: str) -> None:
    for port in document.root.iter("Port"):
        if _name(port) == name:
            for connection in port.findall("Connection"):
                if connection.get("other") == other:
                    port.remove(connection)
