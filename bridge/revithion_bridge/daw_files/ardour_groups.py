"""Groups and VCAs in the tree of an Ardour session."""

from __future__ import annotations

from collections.abc import Sequence

from lxml import etree

from revithion_bridge.daw.bus_plan import PlannedGroup
from revithion_bridge.daw_files.ardour_document import ArdourDocument, add_control, unique
from revithion_bridge.daw_files.ardour_units import rgba
from revithion_bridge.daw_files.xml_tree import Element, drop


def add_group(document: ArdourDocument, group: PlannedGroup) -> Element:
    """A new group without members. It selects its members together, and leaves faders, mutes and colours to each."""
    shared = ("gain", "mute", "solo", "recenable", "route-active", "color", "monitoring")
    groups = document.section("RouteGroups")
    return etree.SubElement(
        groups,
        "RouteGroup",
        {
            "id": document.new_id(),
            "rgba": str(rgba(group.colour)),
            "used-to-share-gain": "0",
            "name": unique((other.get("name", "") for other in groups), group.name),
            "hidden": "0",
            "active": "1",
            "relative": "1",
            "select": "1",
            **dict.fromkeys(shared, "0"),
            "group-master-number": "-1",
            "routes": "",
        },
    )


def join_group(group: Element, route: Element) -> None:
    """Adds a route to a group."""
    group.set("routes", f"{group.get('routes', '')}{route.get('id')} ")
    route.set("route-group", group.get("name", ""))


def group_of(document: ArdourDocument, route: Element) -> Element | None:
    """The group that has the route."""
    groups = document.section("RouteGroups").findall("RouteGroup")
    return next((group for group in groups if route.get("id") in group.get("routes", "").split()), None)


def add_vca(document: ArdourDocument, name: str) -> str:
    """A new VCA at 0 dB; its number."""
    numbers = [int(vca.get("number", "0")) for vca in document.root.iterfind("VCAManager/VCA")]
    number = max([*numbers, int(document.root.get("vca-counter", "1")) - 1], default=0) + 1
    document.root.set("vca-counter", str(number + 1))
    attributes = {"name": document.unique_name(name), "number": str(number)}
    vca = etree.SubElement(document.section("VCAManager"), "VCA", attributes)
    etree.SubElement(
        vca, "PresentationInfo", {"order": document.new_order(), "flags": "VCA,OrderSet", "color": str(rgba("#FF8800"))}
    )
    add_control(document, vca, "gaincontrol", 1.0)
    etree.SubElement(vca, "Slavable")
    return str(number)


def vcas_of(route: Element) -> set[str]:
    """Numbers of the VCAs that govern a route."""
    return {master.get("number", "") for master in route.iterfind("Slavable/Master")}


def join_vca(route: Element, number: str) -> None:
    """Lets a VCA govern a route."""
    slavable = route.find("Slavable")
    if slavable is None:
        slavable = etree.SubElement(route, "Slavable")
    etree.SubElement(slavable, "Master", {"number": number})


def remove_empty(document: ArdourDocument, groups: Sequence[Element], vcas: Sequence[str]) -> None:
    """Removes those of the groups and VCAs (by number) that have nothing left."""
    for group in groups:
        if not group.get("routes", "").split():
            drop(group)
    governing = {number for strip in document.root.iter("Route", "VCA") for number in vcas_of(strip)}
    for vca in list(document.root.iterfind("VCAManager/VCA")):
        if vca.get("number") in set(vcas) - governing:
            drop(vca)
