"""The score element of a MusicXML file, plain or compressed, from whoever wrote it: everything is bounded."""

from __future__ import annotations

import io
import zipfile
import zlib

from score.performance import BadScore, short

MAX_BYTES = 32 << 20  # of the file, and of what an .mxl unpacks to
MAX_DEPTH = 100
MAX_ELEMENTS = 2_000_000
_ROOTS = ("score-partwise", "score-timewise")


def score_element(blob: bytes):
    """The ``<score-partwise>`` element; a timewise score is turned.

    Raises:
        BadScore: not MusicXML, damaged, or beyond the limits.
    """
    if blob.startswith(b"PK"):
        blob = unpack(blob)
    root = parse_xml(blob)
    for element in root.iter():  # a prefix or default namespace tells nothing here
        if isinstance(element.tag, str) and element.tag.startswith("{"):
            element.tag = element.tag.partition("}")[2]
    if root.tag not in _ROOTS:
        raise BadScore(f"is not MusicXML (its root element is <{short(ValueError(root.tag))[:40]}>)")
    if root.tag == "score-timewise":
        root = _partwise(root)
    if root.find("part/measure") is None:
        raise BadScore("has no notes to play; give a score with at least one note")
    return root


def _partwise(root):
    """Measures of parts as parts of measures."""
    from xml.etree.ElementTree import Element

    out, parts = Element("score-partwise", root.attrib), {}
    for child in root:
        if child.tag != "measure":
            out.append(child)
            continue
        for part in child.findall("part"):
            name = part.get("id", "")
            if name not in parts:
                parts[name] = Element("part", part.attrib)
            measure = Element("measure", child.attrib)
            measure.extend(part)
            parts[name].append(measure)
    out.extend(parts.values())
    return out


def unpack(blob: bytes) -> bytes:
    """The score inside an ``.mxl`` container, whose sizes and paths are not to be believed."""
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            names = [n for n in archive.namelist() if not n.startswith(("META-INF/", "__MACOSX/")) and n != "mimetype"]
            names = [n for n in names if n.lower().endswith((".xml", ".musicxml"))]
            if "META-INF/container.xml" in archive.namelist():
                container = parse_xml(_read_member(archive, "META-INF/container.xml"))
                roots = [element.get("full-path") for element in container.iter() if element.get("full-path")]
                inside = [n for n in roots if n in archive.namelist()]
                if roots and not inside and not names:
                    raise BadScore(f"has no {roots[0][:60]!r} in it, which its container names; export it again")
                names = inside or names
            if not names:
                raise BadScore("is a zip file without a score in it")
            return _read_member(archive, names[0])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise BadScore(f"is a damaged compressed score ({short(error)})") from None


def _read_member(archive, name: str) -> bytes:
    try:
        with archive.open(name) as member:
            text = member.read(MAX_BYTES + 1)
    except zlib.error as error:
        raise BadScore(f"is a damaged compressed score ({short(error)})") from None
    if len(text) > MAX_BYTES:
        raise BadScore(f"unpacks to more than {MAX_BYTES >> 20} MiB; it is a zip bomb, or far too long")
    return text


def parse_xml(blob: bytes):
    """The root element; entities are refused, depth and number of elements are bounded."""
    import defusedxml
    from defusedxml.ElementTree import DefusedXMLParser, ParseError

    try:
        parser = DefusedXMLParser(target=_Builder(), forbid_entities=True, forbid_external=True)
        for start in range(0, len(blob), 1 << 16):
            parser.feed(blob[start : start + (1 << 16)])
        return parser.close()
    except defusedxml.DefusedXmlException:
        raise BadScore("declares XML entities, which no score needs; it is refused") from None
    except (ParseError, ValueError, LookupError, AssertionError, RecursionError) as error:
        raise BadScore(f"is not XML that can be read ({short(error)})") from None


def _Builder():
    """A tree builder that counts."""
    from xml.etree.ElementTree import TreeBuilder

    class Builder(TreeBuilder):
        depth = count = 0

        def start(self, tag, attributes):
            self.depth += 1
            self.count += 1
            if self.depth > MAX_DEPTH:
                raise BadScore(f"nests its XML elements more than {MAX_DEPTH} deep; no score does")
            if self.count > MAX_ELEMENTS:
                raise BadScore(f"has more than {MAX_ELEMENTS} XML elements; shorten it")
            return super().start(tag, attributes)

        def end(self, tag):
            self.depth -= 1
            return super().end(tag)

    return Builder()
