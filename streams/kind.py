"""What a file is that is no audio, by its first bytes."""

from __future__ import annotations

import regex

_CONVERT = "convert it to FLAC or WAV first"
_STARTS = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"BZh": "a bzip2 archive; unpack it first",
    b"\xfd7zXZ\0": "an xz archive; unpack it first",
    b"(\xb5/\xfd": "a zstd archive; unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
    b"\x1aE\xdf\xa3": f"a Matroska or WebM file; {_CONVERT}",
    b"0&\xb2u\x8ef\xcf\x11": f"a Windows Media file; {_CONVERT}",
    b"FLV\x01": f"a video (Flash); {_CONVERT}",
    b"\0\0\x01\xba": f"a video (MPEG); {_CONVERT}",
    b"\0\0\x01\xb3": f"a video (MPEG); {_CONVERT}",
    b"wvpk": f"a WavPack file; {_CONVERT}",
    b"MAC ": f"a Monkey's Audio file; {_CONVERT}",
    b"#!AMR": f"an AMR file; {_CONVERT}",
    b"DSD ": f"a DSD file; {_CONVERT}",
    b"TTA1": f"a True Audio file; {_CONVERT}",
    b"MPCK": f"a Musepack file; {_CONVERT}",
    b"MP+": f"a Musepack file; {_CONVERT}",
    b".ra\xfd": f"a RealAudio file; {_CONVERT}",
    b".RMF": f"a RealMedia file; {_CONVERT}",
    b"\x93NUMPY": "an array of NumPy",
    b"{\\rtf": "a text document (RTF)",
    b"MThd": "a MIDI file",
    b"\x89PNG": "a picture (PNG)",
    b"\xff\xd8\xff": "a picture (JPEG)",
    b"GIF8": "a picture (GIF)",
    b"SQLite format 3": "a database",
    b"\x7fELF": "a program",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself; fetch it with git lfs pull",
    b"oid sha256": "a pointer of Git LFS, not the file itself; fetch it with git lfs pull",
}
_RIFF = {
    b"AVI ": f"a video (AVI); {_CONVERT}",
    b"RMID": "a MIDI file",
    b"WEBP": "a picture (WebP)",
    b"sfbk": "a soundfont",
    b"DLS ": "a collection of instruments (DLS)",
    b"CDDA": "a pointer to a track of a CD, not its sound; copy the track from the CD as FLAC or WAV",
}
_SOUND = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"caff", b".snd", b"fLaC", b"OggS")  # is no text, if short
XML, TEXT = "an XML document", "a text file"
ZEROS = "nothing but zeros, as of a download that did not end; get it again"
MAYBE = (None, TEXT, ZEROS)  # some sound files begin so
HEAD = 1024  # bytes that are looked at


def what(head: bytes) -> str | None:
    """What a file is that begins so, as "a web page (HTML)", with what to do where that is clear; None: unknown.

    Args:
        head: its first :data:`HEAD` bytes, or fewer where it has no more.
    """
    for start, name in _STARTS.items():
        if head.startswith(start):
            return name
    if head[4:8] == b"ftyp":
        sound = head[8:11] in (b"M4A", b"M4B")
        return f"{'an MPEG-4 sound file (M4A)' if sound else 'a video or sound file of the MPEG-4 family'}; {_CONVERT}"
    if head[:4] == b"RIFF" and head[8:12] in _RIFF:
        return _RIFF[head[8:12]]
    if head[:4] == b"FORM" and head[8:12] in (b"XDIR", b"XMID"):
        return "a MIDI file of games (XMI); convert it to MIDI first"
    if _is_aac(head):
        return f"an AAC file; {_CONVERT}"
    if head.startswith(_SOUND):
        return None
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    if head and not head.strip(b"\0"):
        return ZEROS
    return _text(head)


def _is_aac(head: bytes) -> bool:
    """Whether two frames of AAC with headers of their own (ADTS, ISO/IEC 13818-7) follow each other."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return False
    size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    following = head[size : size + 2]
    return size > 7 and (len(following) < 2 or (following[0] == 0xFF and following[1] & 0xF6 == 0xF0))


def _text(head: bytes) -> str | None:
    """The same of text."""
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if head.startswith(mark):
            head = head[len(mark) :].decode(encoding, "ignore").encode()
    text = head.decode("utf-8", "replace").lstrip().lower()
    if text.startswith(("<!doctype html", "<html", "<head", "<body", "<script")) or "<html" in text:
        return "a web page (HTML), as servers send where a download fails; get the file itself"
    if text.startswith("<") and _is_text(head):
        return XML
    if regex.match(r"[{\[]\s*([\"{}\[\]]|-?\d|true|false|null)", text) and _is_text(head):
        return "a JSON document, as servers send where a download fails; get the file itself"
    return TEXT if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    """Whether these bytes are text: UTF-8, or nearly ASCII, and without control characters."""
    if any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head):
        return False
    n_high = sum(byte > 126 for byte in head)
    try:
        head[: len(head) - 3 if len(head) == HEAD else None].decode()
    except UnicodeDecodeError:
        return bool(head) and n_high < 0.1 * len(head)
    return bool(head)
