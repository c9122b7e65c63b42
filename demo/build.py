"""Build the demo library: ``python -m demo.build``. The built files are committed, so a box needs none of this."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from demo import content_engineering as engineering
from demo import content_legal as legal
from demo.writers import write_docx, write_pdf, write_pptx, write_scan, write_xlsx

LIBRARY: Final = Path(__file__).parent / "library"


def build(library: Path) -> None:
    """Write every document below ``library``; the same code gives the same bytes."""
    office, shop = library / "legal", library / "engineering"
    for folder in (office, shop):
        folder.mkdir(parents=True, exist_ok=True)
    write_pdf(office / "supply_contract.pdf", legal.SUPPLY_CONTRACT, "Supply agreement SA-2025/117")
    write_docx(
        office / "договор_поставки.docx", legal.SUPPLY_CONTRACT_RU, "Договор поставки № 48-П/2025", "Договор № 48-П/2025, экземпляр Покупателя"
    )
    write_scan(office / "договор_аренды_скан.pdf", legal.LEASE_SCAN_RU)
    (office / "leave_policy.html").write_text(legal.LEAVE_POLICY, encoding="utf-8")
    (office / "положение_об_отпусках.txt").write_bytes(legal.VACATION_RULES_RU.replace("\n", "\r\n").encode("cp1251"))
    (office / "nda_guide.md").write_text(legal.NDA_GUIDE, encoding="utf-8")
    (office / "протокол_совещания.txt").write_bytes(legal.MINUTES_RU.replace("\n", "\r\n").encode("utf-16"))
    (office / "реестр_доверенностей.csv").write_bytes(legal.POWERS_OF_ATTORNEY_RU.encode("cp1251"))
    write_pdf(shop / "pump_manual.pdf", engineering.PUMP_MANUAL, "P-200 operating manual")
    write_docx(shop / "инструкция_по_охране_труда.docx", engineering.SAFETY_RU, "ИОТ-07", "ИОТ-07, лист учёта прилагается")
    write_docx(shop / "incident_report.docx", engineering.INCIDENT_REPORT, "Incident report INC-2025-031", "Internal use only")
    write_xlsx(shop / "price_list.xlsx", engineering.PRICE_HEADER, engineering.PRICE_ROWS, engineering.DISCOUNT_ROWS)
    write_pptx(shop / "итоги_квартала.pptx", engineering.SLIDES_RU, "Итоги первого квартала")
    (shop / "регламент_компрессора.md").write_text(engineering.MAINTENANCE_RU, encoding="utf-8")
    (shop / "calibration.csv").write_text(engineering.CALIBRATION, encoding="utf-8")
    (shop / "вопросы_и_ответы.html").write_bytes(engineering.IT_FAQ_RU.encode("cp1251"))
    (shop / "backup_policy.txt").write_text(engineering.BACKUP_POLICY, encoding="utf-8")


if __name__ == "__main__":
    build(LIBRARY)
