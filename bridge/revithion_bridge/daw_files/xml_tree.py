"""What the writers of Ardour's sessions and of DAWprojects both need to know of XML and of lxml."""

from __future__ import annotations

import re
from typing import TypeAlias

from lxml import etree

Element: TypeAlias = etree._Element  # pyright: ignore[reportPrivateUsage] # lxml gives its elements no public name

NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML can't hold: control characters and halves of surrogates."""


def drop(element: Element) -> None:
    """Takes an element away from where it is, if it is anywhere."""
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)
