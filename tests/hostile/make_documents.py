"""Build documents that want to hurt: damaged, protected, exploding, endless, lying. Each function writes one file.

Also runs alone: ``python -m tests.hostile.make_documents FOLDER`` writes all of them, to try against a running box.
"""

from __future__ import annotations

import io
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import docx
import openpyxl
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
DTD = '<!DOCTYPE d [<!ENTITY a "ha">' + "".join(f'<!ENTITY {n} "{f"&{p};" * 10}">' for p, n in zip("abcdefgh", "bcdefghi", strict=True)) + "]>"


def pdf_of(objects: list[bytes], root: int = 1) -> bytes:
    """A PDF from raw object bodies, numbered from 1, with a correct cross-reference table."""
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, io.SEEK_END)
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.write(b"".join(b"%010d 00000 n \n" % offset for offset in offsets))
    out.write(b"trailer\n<< /Size %d /Root %d 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, root, start))
    return out.getvalue()


def stream(content: bytes, extra: bytes = b"") -> bytes:
    return b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(content), extra, content)


def text_pdf(pages: int = 1, encryption: StandardEncryption | None = None) -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out, encrypt=encryption)
    for number in range(pages):
        canvas.drawString(72, 720, f"This is page {number + 1} of an honest document.")
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def office(path: Path, change: dict[str, bytes], maker: Callable[[], bytes]) -> None:
    """An Office file with some of its parts replaced."""
    with zipfile.ZipFile(io.BytesIO(maker())) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, change.pop(name) if name in change else source.read(name))
        for name, content in change.items():
            target.writestr(name, content)


def plain_docx() -> bytes:
    out = io.BytesIO()
    document = docx.Document()
    document.add_paragraph("An honest paragraph.")
    document.save(out)
    return out.getvalue()


def plain_xlsx() -> bytes:
    out = io.BytesIO()
    book = openpyxl.Workbook()
    book.active.append(["an honest", "row"])
    book.save(out)
    return out.getvalue()


def truncated_pdf(path: Path) -> None:
    path.write_bytes(text_pdf(3)[:400])


def garbage_pdf(path: Path) -> None:
    path.write_bytes(b"%PDF-1.7\n" + bytes(range(256)) * 64)


def encrypted_pdf(path: Path) -> None:
    path.write_bytes(text_pdf(1, StandardEncryption("secret", strength=128)))


def endless_pages_pdf(path: Path) -> None:
    """A page tree that contains itself."""
    path.write_bytes(
        pdf_of(
            [
                b"<< /Type /Catalog /Pages 2 0 R >>",
                b"<< /Type /Pages /Kids [2 0 R 3 0 R] /Count 2 >>",
                b"<< /Type /Pages /Parent 2 0 R /Kids [2 0 R] /Count 1 >>",
            ]
        )
    )


def endless_form_pdf(path: Path) -> None:
    """A form that draws itself, twice."""
    form = stream(b"/F Do /F Do", b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /F 4 0 R >> >>")
    path.write_bytes(
        pdf_of(
            [
                b"<< /Type /Catalog /Pages 2 0 R >>",
                b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
                b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 99 99] /Resources << /XObject << /F 4 0 R >> >> /Contents 5 0 R >>",
                form,
                stream(b"/F Do"),
            ]
        )
    )


def endless_xref_pdf(path: Path) -> None:
    """A cross-reference table whose predecessor is itself."""
    data = text_pdf(1)
    start = int(data.rsplit(b"startxref\n", 1)[1].split()[0])
    path.write_bytes(data.replace(b"trailer\n<<", b"trailer\n<< /Prev %d" % start, 1))


def huge_picture_pdf(path: Path) -> None:
    """A page whose picture declares 60,000 x 60,000 pixels."""
    picture = stream(
        zlib.compress(b"\0" * 100_000),
        b"/Type /XObject /Subtype /Image /Width 60000 /Height 60000 /ColorSpace /DeviceRGB /BitsPerComponent 8 /Filter /FlateDecode",
    )
    path.write_bytes(
        pdf_of(
            [
                b"<< /Type /Catalog /Pages 2 0 R >>",
                b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
                b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 14000 14000] /Resources << /XObject << /I 4 0 R >> >> /Contents 5 0 R >>",
                picture,
                stream(b"q 14000 0 0 14000 0 0 cm /I Do Q"),
            ]
        )
    )


def ten_thousand_pages_pdf(path: Path) -> None:
    count = 10_000
    kids = b" ".join(b"%d 0 R" % (number + 3) for number in range(count))
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] >>"
    tree = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, count)
    path.write_bytes(pdf_of([b"<< /Type /Catalog /Pages 2 0 R >>", tree, *[page] * count]))


def blank_pdf(path: Path) -> None:
    path.write_bytes(
        pdf_of(
            [
                b"<< /Type /Catalog /Pages 2 0 R >>",
                b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
                b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 99 99] >>",
            ]
        )
    )


def png_named_pdf(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 500)


def text_named_pdf(path: Path) -> None:
    path.write_text("This was never a PDF.\n" * 20)


def encrypted_office(path: Path) -> None:
    """The OLE container that Office wraps around a protected DOCX."""
    names = "".join(f"{name:\0<32}" for name in ("Root Entry", "EncryptionInfo", "EncryptedPackage"))
    path.write_bytes(OLE_MAGIC + b"\0" * 504 + names.encode("utf-16-le") + b"\0" * 4096)


def old_word(path: Path) -> None:
    path.write_bytes(OLE_MAGIC + b"\0" * 504 + "WordDocument".encode("utf-16-le") + b"\0" * 4096)


def encrypted_zip(path: Path) -> None:
    """The encryption flag set on every entry."""
    data = bytearray(plain_docx())
    at = 0
    while (at := data.find(b"PK\x01\x02", at)) >= 0:
        data[at + 8] |= 1
        at += 4
    path.write_bytes(bytes(data))


def bomb_docx(path: Path) -> None:
    """96 MiB of spaces in one part, packed a thousand times."""
    office(path, {"word/document.xml": b" " * (96 * 1024 * 1024)}, plain_docx)


def declared_bomb_xlsx(path: Path) -> None:
    """A directory that promises almost four gigabytes for one part."""
    data = bytearray(plain_xlsx())
    at = data.find(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, 0xFFFF_FF00)
    path.write_bytes(bytes(data))


def lying_bomb_docx(path: Path) -> None:
    """A directory that promises 100 bytes for a part of 20 MiB."""
    office(path, {"word/document.xml": b"<a>" + b" " * (20 * 1024 * 1024)}, plain_docx)
    data = bytearray(path.read_bytes())
    at = data.find(b"word/document.xml", data.find(b"PK\x01\x02")) - 46
    struct.pack_into("<I", data, at + 24, 100)
    path.write_bytes(bytes(data))


def many_parts_docx(path: Path) -> None:
    office(path, {f"x/{number}.xml": b"<a/>" for number in range(12_000)}, plain_docx)


def huge_directory_docx(path: Path) -> None:
    """A directory that lists one entry 200,000 times."""
    data = plain_docx()
    start = data.find(b"PK\x01\x02")
    record = data[start : data.find(b"PK\x01\x02", start + 4)]
    directory = record * 200_000
    path.write_bytes(data[:start] + directory + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65_535, 65_535, len(directory), start, 0))


def billion_laughs_docx(path: Path) -> None:
    xml = f'<?xml version="1.0"?>{DTD}<d>&i;</d>'
    office(path, {"word/document.xml": xml.encode()}, plain_docx)


def billion_laughs_utf16_docx(path: Path) -> None:
    xml = f'<?xml version="1.0" encoding="UTF-16"?>{DTD}<d>&i;</d>'
    office(path, {"word/document.xml": xml.encode("utf-16")}, plain_docx)


def billion_laughs_xlsx(path: Path) -> None:
    xml = f'<?xml version="1.0"?>{DTD}<sst>&i;</sst>'
    office(path, {"xl/sharedStrings.xml": xml.encode()}, plain_xlsx)


def external_entity_docx(path: Path) -> None:
    xml = '<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]><d>&x;</d>'
    office(path, {"word/document.xml": xml.encode()}, plain_docx)


def truncated_docx(path: Path) -> None:
    path.write_bytes(plain_docx()[:2000])


def broken_xml_docx(path: Path) -> None:
    office(path, {"word/document.xml": b"<w:document><w:body>"}, plain_docx)


def deep_docx(path: Path) -> None:
    """Paragraphs nested 100,000 deep."""
    space = b'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    body = b"<w:p>" * 100_000 + b"</w:p>" * 100_000
    office(path, {"word/document.xml": b"<w:document %s><w:body>%s</w:body></w:document>" % (space, body)}, plain_docx)


def sheet(rows: bytes, dimension: bytes = b"A1") -> bytes:
    space = b'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    return b'<worksheet %s><dimension ref="%s"/><sheetData>%s</sheetData></worksheet>' % (space, dimension, rows)


def huge_dimension_xlsx(path: Path) -> None:
    """Declares a sheet of 17 thousand million cells and has two."""
    rows = b'<row r="1"><c r="A1"><v>1</v></c><c r="B1"><v>2</v></c></row>'
    office(path, {"xl/worksheets/sheet1.xml": sheet(rows, b"A1:XFD1048576")}, plain_xlsx)


def far_cells_xlsx(path: Path) -> None:
    """Few cells, each in the last column: honest size, a thousand million cells when filled up."""
    rows = b"".join(b'<row r="%d"><c r="XFD%d"><v>1</v></c></row>' % (row, row) for row in range(1, 60_000))
    office(path, {"xl/worksheets/sheet1.xml": sheet(rows)}, plain_xlsx)


def empty_file(path: Path) -> None:
    path.write_bytes(b"")


def blank_text(path: Path) -> None:
    path.write_text(" \n\n\t \n")


def deep_html(path: Path) -> None:
    path.write_text("<html><body>" + "<div>" * 200_000 + "the bottom")


def unclosed_html(path: Path) -> None:
    """Formatting tags that an HTML parser must reopen in every block."""
    path.write_text("<html><body>" + "<b><i><p>x" * 20_000)


def comment_html(path: Path) -> None:
    path.write_text("<!---->" * 400_000 + "text after comments")


def huge_line(path: Path) -> None:
    path.write_text("word " * 1_000_000)


def nul_bytes(path: Path) -> None:
    path.write_bytes(b"Payment is due\0 within 30 days.\nDelivery takes 5 days.\0\n" + b"More honest text follows here. " * 20)


def invalid_utf8(path: Path) -> None:
    path.write_bytes(("Срок поставки составляет тридцать дней. " * 40).encode() + b"\xff\xfe\xfd" + "Конец.".encode())


def random_binary(path: Path) -> None:
    state = 1
    out = bytearray()
    for _ in range(40_000):
        state = (state * 1103515245 + 12345) % 2**31
        out.append(state >> 16 & 0xFF)
    path.write_bytes(bytes(out))


def open_quote_csv(path: Path) -> None:
    path.write_text('a,b\n"' + "x,y\n" * 500_000)


def wide_csv(path: Path) -> None:
    path.write_text("1," * 3_000_000)


def control_names_md(path: Path) -> None:
    path.write_text("# Title\n\n" + "[x](javascript:alert(1)) <script>alert(2)</script>\n\n" + "> " * 50_000)


DOCUMENTS: dict[str, Callable[[Path], None]] = {
    "truncated.pdf": truncated_pdf,
    "garbage.pdf": garbage_pdf,
    "encrypted.pdf": encrypted_pdf,
    "endless_pages.pdf": endless_pages_pdf,
    "endless_form.pdf": endless_form_pdf,
    "endless_xref.pdf": endless_xref_pdf,
    "huge_picture.pdf": huge_picture_pdf,
    "ten_thousand_pages.pdf": ten_thousand_pages_pdf,
    "blank.pdf": blank_pdf,
    "picture.pdf": png_named_pdf,
    "text.pdf": text_named_pdf,
    "protected.docx": encrypted_office,
    "old.doc": old_word,
    "encrypted_zip.docx": encrypted_zip,
    "bomb.docx": bomb_docx,
    "declared_bomb.xlsx": declared_bomb_xlsx,
    "lying_bomb.docx": lying_bomb_docx,
    "many_parts.docx": many_parts_docx,
    "huge_directory.docx": huge_directory_docx,
    "billion_laughs.docx": billion_laughs_docx,
    "billion_laughs_utf16.docx": billion_laughs_utf16_docx,
    "billion_laughs.xlsx": billion_laughs_xlsx,
    "external_entity.docx": external_entity_docx,
    "truncated.docx": truncated_docx,
    "broken_xml.docx": broken_xml_docx,
    "deep.docx": deep_docx,
    "huge_dimension.xlsx": huge_dimension_xlsx,
    "far_cells.xlsx": far_cells_xlsx,
    "empty.txt": empty_file,
    "blank.txt": blank_text,
    "deep.html": deep_html,
    "unclosed.html": unclosed_html,
    "comments.html": comment_html,
    "huge_line.txt": huge_line,
    "nul_bytes.txt": nul_bytes,
    "invalid_utf8.txt": invalid_utf8,
    "random.txt": random_binary,
    "open_quote.csv": open_quote_csv,
    "wide.csv": wide_csv,
    "script.md": control_names_md,
}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for file_name, write in DOCUMENTS.items():
        write(folder / file_name)
