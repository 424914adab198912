"""The score element of a MusicXML file, plain or compressed, from whoever wrote it: everything is bounded."""

from __future__ import annotations

import io
import posixpath
import unicodedata
import zipfile
import zlib
from html import unescape
from urllib.parse import unquote

import regex

from score.performance import BadScore, short

MAX_BYTES = 32 << 20  # of the file, and of what an .mxl unpacks to
MAX_DEPTH = 100
MAX_ELEMENTS = 2_000_000
_ROOTS = ("score-partwise", "score-timewise")
_CONTAINER = "META-INF/container.xml"
_UTF8 = 0x800  # flag of a member of an archive: its name is in UTF-8
_SUFFIXES = (".xml", ".musicxml")
_OTHER = regex.compile(r"\.(pdf|png|jpe?g|svg|midi?|mp3|wav|ogg|flac|m4a)$", regex.IGNORECASE)
_MAX_TRIED = 16  # members of an archive without a container
# The first bytes of what is no UTF-8.
_MARKS = (
    (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"),
    (b"<\0", "utf-16-le"), (b"\0<", "utf-16-be"), (b"\xef\xbb\xbf", "utf-8"),
)  # fmt: skip
# Of several bytes a character, which expat does not know.
_ENCODINGS = {
    "shift-jis", "sjis", "cp932", "windows-31j", "euc-jp", "iso-2022-jp", "gbk", "gb2312", "gb18030", "big5", "euc-kr",
    "cp949", "utf-32",
}  # fmt: skip


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

    out = Element("score-partwise", root.attrib)
    out.extend(child for child in root if child.tag != "measure")
    measures = root.findall("measure")
    parts = {part.get("id", ""): Element("part", part.attrib) for measure in measures for part in measure.iter("part")}
    for measure in measures:
        within = {part.get("id", ""): part for part in measure.findall("part")}
        for name, part in parts.items():  # one that is not in a measure has an empty one there
            copy = Element("measure", measure.attrib)
            copy.extend(within.get(name, ()))
            part.append(copy)
    out.extend(parts.values())
    return out


def unpack(blob: bytes) -> bytes:
    """The score inside an ``.mxl`` container, whose sizes and paths are not to be believed.

    It is the first MusicXML file that ``META-INF/container.xml`` names; without a container, or where that cannot be
    read or names no score that is there, the first that looks like a score. The container may lie in a folder that was
    packed as a whole; its paths begin there.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            members = {_path(info.filename): info.filename for info in reversed(infos)}
            container = min((p for p in members if _is_container(p)), key=len, default=None)
            named = [] if container is None else _rootfiles(_read_member(archive, members[container]))
            folder = "" if container is None else container[: -len(_CONTAINER)]
            found = [name for path in named if (name := _member(infos, folder, path)) is not None]
            others = (name for path, name in reversed(members.items()) if _may_be_score(path))
            scores = list(dict.fromkeys([*found, *others]))
            if not scores and named:
                raise BadScore(f"has no {named[0][:60]!r} in it, which its container names; export it again")
            if not scores:
                raise BadScore("is a zip file without a score in it")
            if len(scores) > 1:
                scores = [name for name in scores[:_MAX_TRIED] if _looks_like_score(archive, name)] or scores
            return _read_member(archive, scores[0])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise BadScore(f"is a damaged compressed score ({short(error)})") from None


def _path(name: str) -> str:
    """A path inside an archive, from its root, with slashes."""
    return posixpath.normpath("/" + name.strip().replace("\\", "/")).lstrip("/")


def _is_container(path: str) -> bool:
    """Whether a path is a container's, in any folder and in any case; the copies that macOS adds are none."""
    return f"/{path}".casefold().endswith(f"/{_CONTAINER}".casefold()) and not path.startswith("__MACOSX")


def _member(infos: list[zipfile.ZipInfo], folder: str, path: str) -> str | None:
    """The name in the archive of a file that the container in ``folder`` names, in that folder; else in other case,
    else in any folder. Percent signs may stand for characters."""
    wanted = [_path(folder + spelled) for spelled in (path, unquote(path))]
    for same in (_composed, _folded, _in_any_folder):
        found = {same(spelled): info.filename for info in reversed(infos) for spelled in _spellings(info)}
        name = next((found[same(path)] for path in wanted if same(path) in found), None)
        if name is not None:
            return name
    return None


def _spellings(info: zipfile.ZipInfo) -> list[str]:
    """The path of a member; where the archive does not say that its name is UTF-8, in other encodings too."""
    out = [info.filename]
    if not info.flag_bits & _UTF8:
        raw = info.filename.encode("cp437", "replace")  # as zipfile has read it
        out += [raw.decode(encoding, "replace") for encoding in ("utf-8", "cp1252", "cp932", "gb18030")]
    return [_path(path) for path in out]


def _composed(path: str) -> str:
    """Letters with their accents as one character: macOS takes them apart."""
    return unicodedata.normalize("NFC", path)


def _folded(path: str) -> str:
    return _composed(path).casefold()


def _in_any_folder(path: str) -> str:
    return posixpath.basename(_folded(path))


def _rootfiles(blob: bytes) -> list[str]:
    """The paths of scores that a container names; where it is not XML, whatever looks like such a path."""
    try:
        roots = [(e.get("full-path"), e.get("media-type", "")) for e in parse_xml(blob).iter() if e.get("full-path")]
    except BadScore:
        text = blob.decode("utf-8", "replace").replace("\0", "")
        roots = [(unescape(path), "") for path in regex.findall(r"full-path\s*=\s*[\"']([^\"'<>]{1,300})[\"']", text)]
    return [path for path, kind in roots if (not kind or "xml" in kind.lower()) and not _OTHER.search(path.strip())]


def _may_be_score(path: str) -> bool:
    """Whether a member may be a score by its name: files that macOS adds are not, one that is called ``.xml`` is."""
    folder, _, name = path.lower().rpartition("/")
    hidden = name.startswith(".") and name not in _SUFFIXES
    return name.endswith(_SUFFIXES) and not hidden and not folder.startswith(("meta-inf", "__macosx"))


def _looks_like_score(archive, name: str) -> bool:
    with archive.open(name) as member:
        head = member.read(1 << 16).replace(b"\0", b"")  # of UTF-16 every other byte
    return any(root.encode() in head for root in _ROOTS)


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
        return _parse(blob, DefusedXMLParser(target=_Builder(), forbid_entities=True, forbid_external=True))
    except defusedxml.DefusedXmlException:
        raise BadScore("declares XML entities, which no score needs; it is refused") from None
    except (ParseError, ValueError, LookupError, AssertionError, RecursionError) as error:
        reason = short(error)
    try:
        return _parse(_as_utf8(blob), DefusedXMLParser(target=_Builder(), forbid_entities=True, forbid_external=True))
    except defusedxml.DefusedXmlException:
        raise BadScore("declares XML entities, which no score needs; it is refused") from None
    except (ParseError, ValueError, LookupError, AssertionError, RecursionError):
        raise BadScore(f"is not XML that can be read ({reason})") from None


def _parse(blob: bytes, parser):
    for start in range(0, len(blob), 1 << 16):
        parser.feed(blob[start : start + (1 << 16)])
    return parser.close()


def _as_utf8(blob: bytes) -> bytes:
    """What cannot be read as it says, as UTF-8 without a declaration: in the encoding that its first bytes tell, or in
    UTF-8, in the one that it declares, in Windows' Latin. Characters that XML has none of are dropped."""
    head = blob[:200].replace(b"\0", b"")
    declared = regex.search(rb"encoding\s*=\s*[\"']([\w.:-]{1,40})[\"']", head)
    said = declared[1].decode("ascii", "replace").lower().replace("_", "-") if declared else ""
    order = [encoding for mark, encoding in _MARKS if blob.startswith(mark)]
    order += ["utf-8", *([said] if said in _ENCODINGS else []), "cp1252"]
    for encoding in order:
        try:
            text = blob.decode(encoding)
        except UnicodeDecodeError:
            continue
        break
    else:
        text = blob.decode("latin-1")
    text = regex.sub(r"^[\s\ufeff]*(<\?xml[^>]{0,200}\?>)?", "", text)
    return regex.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text).encode()


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
