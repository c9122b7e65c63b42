"""The words of the demo documents of the space ``legal``. A document is a list of blocks, see ``writers.Block``."""

from __future__ import annotations

from demo.writers import Block

SUPPLY_CONTRACT: list[Block] = [
    ("h1", "SUPPLY AGREEMENT No. SA-2025/117"),
    ("p", "Tallinn, 14 March 2025"),
    (
        "p",
        (
            "Northwind Metals Ltd, registered in Leeds, United Kingdom, represented by its director Helen Marsh (the Supplier), and Baltic Assembly OÜ, "
            "registered in Tallinn, Estonia, represented by its board member Karl Tamm (the Buyer), have concluded this agreement."
        ),
    ),
    ("h2", "1. Subject"),
    (
        "p",
        (
            "1.1. The Supplier delivers aluminium profiles and fasteners as listed in Annex A, and the Buyer accepts and pays for them. "
            "1.2. Quantities are fixed by monthly orders which the Buyer places no later than the 10th day of the preceding month."
        ),
    ),
    ("h2", "2. Delivery"),
    (
        "p",
        (
            "2.1. Goods are delivered DAP Tallinn, Paldiski road 80 (Incoterms 2020) within 21 calendar days of the order. "
            "2.2. Risk passes to the Buyer when the consignment note is signed. 2.3. The Buyer inspects the goods within 5 working days of receipt; "
            "hidden defects may be claimed within 12 months."
        ),
    ),
    ("h2", "3. Price and payment"),
    (
        "p",
        (
            "3.1. Prices are stated in euro in Annex A and stay fixed until 31 December 2025. 3.2. The Buyer pays each invoice within 30 calendar days of the "
            "invoice date by bank transfer. 3.3. For payment within 10 days the Buyer may deduct a discount of 2 per cent."
        ),
    ),
    ("h2", "4. Penalties"),
    (
        "p",
        (
            "4.1. For late delivery the Supplier pays a penalty of 0.1 per cent of the value of the delayed goods for each day of delay, but no more than "
            "10 per cent of that value. 4.2. For late payment the Buyer pays interest of 8 per cent a year on the overdue amount. "
            "4.3. Penalties do not release a party from performing the agreement."
        ),
    ),
    ("h2", "5. Force majeure"),
    (
        "p",
        (
            "5.1. A party is not liable for failure caused by events beyond its control. 5.2. The affected party notifies the other in writing within 7 days. "
            "5.3. If such an event lasts longer than 90 days, either party may terminate the agreement without compensation."
        ),
    ),
    ("h2", "6. Term and termination"),
    (
        "p",
        (
            "6.1. The agreement enters into force on 1 April 2025. 6.2. The supply contract ends on 31 March 2027. It is not renewed automatically; "
            "an extension requires a written addendum signed by both parties. 6.3. Either party may terminate the agreement early by giving 60 days' written notice."
        ),
    ),
    ("h2", "7. Governing law"),
    (
        "p",
        "7.1. The agreement is governed by the law of Estonia. 7.2. Disputes that the parties cannot settle within 30 days are resolved by Harju County Court.",
    ),
    ("h2", "Annex A. Prices"),
    (
        "table",
        [
            ["Item", "Article", "Unit", "Price, EUR", "Minimum order"],
            ["Aluminium profile 40x40", "NM-4040", "m", "12.40", "200"],
            ["Aluminium profile 80x40", "NM-8040", "m", "21.75", "120"],
            ["T-slot nut M8", "NM-TN8", "piece", "0.38", "1000"],
            ["Corner bracket steel", "NM-CB2", "piece", "1.95", "300"],
        ],
    ),
    ("p", "Prices exclude VAT. Packaging is included in the price."),
]

SUPPLY_CONTRACT_RU: list[Block] = [
    ("h1", "ДОГОВОР ПОСТАВКИ № 48-П/2025"),
    ("p", "г. Казань, 3 февраля 2025 г."),
    (
        "p",
        (
            "ООО «Волга-Снаб», именуемое в дальнейшем «Поставщик», в лице генерального директора Сафина Р. И., и АО «КазПрибор», именуемое в дальнейшем "
            "«Покупатель», в лице директора по закупкам Орловой Е. В., заключили настоящий договор о нижеследующем."
        ),
    ),
    ("h2", "1. Предмет договора"),
    (
        "p",
        (
            "1.1. Поставщик обязуется передать, а Покупатель — принять и оплатить электротехническую продукцию согласно спецификации (Приложение № 1). "
            "1.2. Общая стоимость товара по договору составляет 4 860 000 рублей, включая НДС 20 %."
        ),
    ),
    ("h2", "2. Сроки и порядок поставки"),
    (
        "p",
        (
            "2.1. Срок поставки составляет 45 календарных дней с даты получения аванса. 2.2. Доставка осуществляется транспортом Поставщика на склад "
            "Покупателя по адресу: г. Казань, ул. Техническая, д. 17. 2.3. Приёмка товара по количеству и качеству проводится в течение 10 рабочих дней."
        ),
    ),
    ("h2", "3. Порядок расчётов"),
    (
        "p",
        (
            "3.1. Покупатель перечисляет аванс в размере 30 % стоимости товара в течение 5 банковских дней с даты подписания договора. "
            "3.2. Оставшиеся 70 % оплачиваются в течение 20 банковских дней после подписания товарной накладной."
        ),
    ),
    ("h2", "4. Качество и гарантия"),
    (
        "p",
        (
            "4.1. Гарантийный срок на товар составляет 24 месяца с даты приёмки. 4.2. Поставщик заменяет товар ненадлежащего качества за свой счёт "
            "в течение 15 рабочих дней с даты получения претензии."
        ),
    ),
    ("h2", "5. Ответственность сторон"),
    (
        "p",
        (
            "5.1. За просрочку поставки Поставщик уплачивает неустойку в размере 0,2 % стоимости непоставленного товара за каждый день просрочки, "
            "но не более 15 % этой стоимости. 5.2. За просрочку оплаты Покупатель уплачивает пеню 0,1 % от суммы долга за каждый день."
        ),
    ),
    ("h2", "6. Срок действия договора"),
    (
        "p",
        (
            "6.1. Договор вступает в силу с момента подписания и действует до 31 декабря 2026 года, а в части расчётов — до полного исполнения обязательств. "
            "6.2. Споры рассматриваются Арбитражным судом Республики Татарстан. Претензионный порядок обязателен, срок ответа на претензию — 20 дней."
        ),
    ),
    ("h2", "Приложение № 1. Спецификация"),
    (
        "table",
        [
            ["№", "Наименование", "Количество", "Цена, руб.", "Сумма, руб."],
            ["1", "Автоматический выключатель ВА-88", "120", "9 500", "1 140 000"],
            ["2", "Кабель ВВГнг 5х10", "6 000 м", "520", "3 120 000"],
            ["3", "Шкаф распределительный ШР-11", "8", "75 000", "600 000"],
        ],
    ),
]

LEASE_SCAN_RU: list[str] = [
    "ДОГОВОР АРЕНДЫ № 12/А",
    "",
    "г. Самара                                   20 января 2025 г.",
    "",
    "1. Арендодатель передаёт, а Арендатор принимает во временное",
    "пользование нежилое помещение площадью 186 кв. метров",
    "по адресу: г. Самара, ул. Заводская, дом 5.",
    "",
    "2. Арендная плата составляет 148 800 рублей в месяц и вносится",
    "не позднее пятого числа текущего месяца.",
    "",
    "3. Арендатор вносит обеспечительный платёж в размере одной",
    "месячной арендной платы.",
    "",
    "4. Помещение передаётся на срок одиннадцать месяцев и подлежит",
    "возврату 20 декабря 2025 года.",
    "",
    "5. Сторона вправе расторгнуть договор, письменно уведомив",
    "другую сторону за два месяца.",
    "",
    "6. Коммунальные услуги Арендатор оплачивает отдельно",
    "по показаниям счётчиков.",
    "",
    "Арендодатель: Кузнецов П. А.     Арендатор: Белова Н. С.",
]

LEAVE_POLICY = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Leave policy</title>
<style>body{font-family:serif} .old{display:none}</style>
<script>document.title = "tracking code that nobody should find";</script></head>
<body>
<nav><a href="/">Intranet</a> <a href="/hr">HR</a></nav>
<h1>Leave policy</h1>
<p>Applies to all employees of Baltic Assembly from <b>1 January 2025</b>. Owner: HR department.</p>
<h2>Annual leave</h2>
<p>Every employee is entitled to <b>28 calendar days</b> of paid annual leave. Up to 7 unused days may be carried over and must be taken before 31 March of the next year.</p>
<p>A request for annual leave is submitted in the HR portal at least 14 days before the first day of leave. The line manager answers within 3 working days.</p>
<h2>Sick leave</h2>
<p>Sickness is reported to the line manager before 10:00 on the first day. A doctor's certificate is required from the fourth day of absence. The company pays 70 per cent of salary from day 4 to day 8.</p>
<h2>Parental and special leave</h2>
<ul>
<li>Paternity leave: 30 calendar days within three years after the birth.</li>
<li>Own wedding: 2 paid days.</li>
<li>Death of a close relative: 3 paid days.</li>
<li>Moving house: 1 paid day a year.</li>
</ul>
<h2>Remote work</h2>
<p>Employees may work from home up to 2 days a week when their manager agrees. Work from another country needs approval by HR and the tax adviser and is limited to 20 days a year.</p>
<table><caption>Who approves</caption>
<tr><th>Kind of leave</th><th>Approved by</th><th>Notice</th></tr>
<tr><td>Annual leave</td><td>Line manager</td><td>14 days</td></tr>
<tr><td>Unpaid leave</td><td>Head of HR</td><td>30 days</td></tr>
<tr><td>Study leave</td><td>Head of department</td><td>45 days</td></tr></table>
<p class="old" style="display:none">Old rule, no longer valid: 25 days.</p>
</body></html>
"""

VACATION_RULES_RU = """ПОЛОЖЕНИЕ О ПРЕДОСТАВЛЕНИИ ОТПУСКОВ

Утверждено приказом генерального директора № 14 от 15.01.2025.

1. ОБЩИЕ ПОЛОЖЕНИЯ

Настоящее положение распространяется на всех работников АО «КазПрибор», включая совместителей.
Ежегодный основной оплачиваемый отпуск составляет 28 календарных дней.
Работникам с ненормированным рабочим днём предоставляется дополнительный отпуск — 5 календарных дней.

2. ГРАФИК ОТПУСКОВ

График отпусков утверждается не позднее 17 декабря предшествующего года.
О начале отпуска работника извещают под подпись не позднее чем за две недели.
Перенос отпуска согласуется с руководителем подразделения и оформляется заявлением.

3. ОПЛАТА ОТПУСКА

Отпускные выплачиваются не позднее чем за три дня до начала отпуска.
По заявлению работника одновременно с отпускными выплачивается материальная помощь в размере 15 000 рублей один раз в год.

4. ОТПУСК БЕЗ СОХРАНЕНИЯ ЗАРАБОТНОЙ ПЛАТЫ

Отпуск без сохранения заработной платы предоставляется по письменному заявлению: при рождении ребёнка,
регистрации брака, смерти близких родственников — до пяти календарных дней.
"""

NDA_GUIDE = """---
title: Guide to non-disclosure agreements
owner: Legal department
---

# Guide to non-disclosure agreements

## When an NDA is needed

Sign a non-disclosure agreement before you share drawings, price calculations, source code or personal data with anyone outside the company. No NDA is needed for published catalogues and press releases.

## Standard terms

- The obligation of secrecy lasts **five years** after the end of the cooperation.
- The contractual penalty for a breach is EUR 25,000 for each case.
- Confidential papers are returned or destroyed within 15 days on request.

## Who may sign

| Value of the deal | Signed by | Reviewed by |
| --- | --- | --- |
| up to EUR 50,000 | Head of department | not required |
| EUR 50,000 to 250,000 | Finance director | Legal department |
| above EUR 250,000 | Managing director | Legal department and auditor |

## Storage

Signed originals are kept in the legal archive, room 3.12, for ten years. Scans go to the folder `legal/nda` on the day of signature.
"""

MINUTES_RU = """ПРОТОКОЛ СОВЕЩАНИЯ № 7

Дата: 22 апреля 2025 года. Место: переговорная «Байкал».
Присутствовали: Орлова Е. В. (председатель), Гусев М. Л., Хасанова А. Р., Литвин Д. О. (секретарь).

ПОВЕСТКА ДНЯ

1. Претензия к поставщику «Волга-Снаб» за задержку кабеля.
2. Выбор банка-гаранта.
3. Подготовка к аудиту.

СЛУШАЛИ И РЕШИЛИ

По первому вопросу: Гусев М. Л. сообщил, что задержка поставки кабеля составила 12 дней. Решили направить претензию до 30 апреля, ответственный — Гусев М. Л.

По второму вопросу: рассмотрены предложения трёх банков. Решили заключить договор о банковской гарантии с банком «Приволжье», ставка 1,8 % годовых. Ответственная — Хасанова А. Р.

По третьему вопросу: внешний аудит начнётся 2 июня 2025 года. Литвину Д. О. собрать реестр договоров к 23 мая.

Следующее совещание назначено на 13 мая 2025 года в 10:00.
"""

POWERS_OF_ATTORNEY_RU = """Номер;Кому выдана;Должность;Полномочия;Выдана;Действует до
Д-101;Гусев Максим Львович;начальник отдела закупок;подписание договоров до 500 000 руб.;2025-01-09;2025-12-31
Д-102;Хасанова Алина Рашидовна;финансовый контролёр;представительство в налоговой инспекции;2025-02-17;2026-02-16
Д-103;Литвин Денис Олегович;юрисконсульт;представительство в арбитражном суде;2025-03-03;2027-03-02
Д-104;Егорова Инна Павловна;заведующая складом;приёмка товара и подписание накладных;2025-03-20;2025-09-19
"""
