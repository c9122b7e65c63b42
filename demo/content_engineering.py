"""The words of the demo documents of the space ``engineering``."""

from __future__ import annotations

import datetime as dt

from demo.writers import Block

PUMP_MANUAL: list[Block] = [
    ("h1", "P-200 Centrifugal Pump. Operating Manual"),
    ("p", "Document PM-200-EN, revision 4, issued 11 November 2024."),
    ("h2", "1. Purpose"),
    (
        "p",
        (
            "The P-200 pump moves clean water and non-aggressive liquids with a temperature from 2 to 85 degrees Celsius. It must not be used for fuels, "
            "acids or drinking water without the stainless kit SK-2."
        ),
    ),
    ("h2", "2. Technical data"),
    (
        "table",
        [
            ["Parameter", "P-200/4", "P-200/6", "P-200/8"],
            ["Rated flow, m3/h", "40", "60", "80"],
            ["Head, m", "32", "38", "45"],
            ["Motor power, kW", "5.5", "7.5", "11"],
            ["Mass, kg", "96", "118", "141"],
            ["Noise level, dB(A)", "71", "73", "76"],
        ],
    ),
    ("h2", "3. Start-up"),
    (
        "p",
        (
            "Fill the housing with water through plug A before the first start. Check the direction of rotation by switching the motor on for one second: "
            "seen from the fan it must turn clockwise. Open the suction valve fully and the discharge valve by one quarter. Never run the pump dry for more than 20 seconds."
        ),
    ),
    ("h2", "4. Maintenance"),
    (
        "p",
        (
            "Grease the bearings every 2,000 operating hours with 15 grams of lithium grease NLGI 2. Replace the mechanical seal every 8,000 hours or at once when "
            "more than 3 drops a minute leak. Check the coupling alignment once a year; the permitted offset is 0.05 mm."
        ),
    ),
    ("h2", "5. Faults"),
    (
        "table",
        [
            ["Symptom", "Likely cause", "Remedy"],
            ["No flow", "Air in the suction line", "Vent the pump and tighten the flanges"],
            ["Vibration", "Coupling out of line", "Align the coupling"],
            ["Motor trips", "Discharge valve fully open at start", "Start with the valve one quarter open"],
            ["Bearing hotter than 90 C", "Too much grease", "Remove the surplus grease"],
        ],
    ),
    ("h2", "6. Warranty"),
    (
        "p",
        (
            "The warranty lasts 36 months from delivery and requires that maintenance is recorded in the service book. Wear parts, in particular mechanical seals "
            "and bearings, are covered for 12 months."
        ),
    ),
]

SAFETY_RU: list[Block] = [
    ("h1", "Инструкция по охране труда ИОТ-07 при работе на токарном станке"),
    ("p", "Утверждена главным инженером 10 сентября 2024 года. Пересматривается не реже одного раза в пять лет."),
    ("h2", "1. Общие требования"),
    (
        "p",
        (
            "К работе на токарном станке допускаются лица не моложе 18 лет, прошедшие медицинский осмотр, вводный инструктаж и проверку знаний. "
            "Повторный инструктаж проводится не реже одного раза в шесть месяцев."
        ),
    ),
    ("h2", "2. Требования перед началом работы"),
    (
        "li",
        [
            "Застегнуть рукава, убрать волосы под головной убор, надеть защитные очки.",
            "Проверить исправность заземления и защитного экрана патрона.",
            "Проверить станок на холостом ходу в течение двух минут.",
        ],
    ),
    ("h2", "3. Требования во время работы"),
    (
        "p",
        (
            "Запрещается работать в перчатках, измерять деталь при вращении шпинделя и удалять стружку руками. Стружку удаляют крючком или щёткой. "
            "Вылет резца не должен превышать полторы высоты его державки."
        ),
    ),
    ("h2", "4. Требования в аварийных ситуациях"),
    (
        "p",
        (
            "При возгорании нажать красную кнопку аварийного останова, отключить вводной автомат и сообщить мастеру по телефону 2-15. "
            "Тушить электрооборудование разрешается только углекислотным или порошковым огнетушителем."
        ),
    ),
    ("h2", "5. Средства защиты"),
    (
        "table",
        [
            ["Средство", "Срок носки", "Где получить"],
            ["Костюм хлопчатобумажный", "12 месяцев", "Склад № 2"],
            ["Очки защитные", "до износа", "Кладовая цеха"],
            ["Ботинки кожаные с металлическим носком", "24 месяца", "Склад № 2"],
        ],
    ),
]

INCIDENT_REPORT: list[Block] = [
    ("h1", "Incident report INC-2025-031"),
    ("p", "Prepared by Anna Petrova, shift engineer. Status: closed."),
    ("h2", "Summary"),
    (
        "p",
        (
            "On 6 May 2025 at 02:40 the cooling of server room B failed. Temperature rose to 41 degrees Celsius within 35 minutes and eleven servers shut themselves down. "
            "Production planning was unavailable for 3 hours and 20 minutes. No data was lost."
        ),
    ),
    ("h2", "Root cause"),
    (
        "p",
        "The root cause was a clogged condensate drain: the float switch stopped both chillers. The alarm was sent to a mailbox of an employee who had left the company in March.",
    ),
    ("h2", "Timeline"),
    (
        "table",
        [
            ["Time", "Event"],
            ["02:40", "Both chillers stop"],
            ["03:15", "First servers shut down"],
            ["04:05", "Guard notices the alarm lamp and calls the engineer on duty"],
            ["05:10", "Drain cleaned, chillers restarted"],
            ["06:00", "All services restored"],
        ],
    ),
    ("h2", "Corrective actions"),
    (
        "li",
        [
            "Clean the condensate drains every three months; responsible: facility team, from 1 June 2025.",
            "Send temperature alarms by SMS to the duty phone; responsible: IT, done on 9 May 2025.",
            "Install a second temperature sensor; responsible: IT, by 30 June 2025.",
        ],
    ),
    ("p", "The total cost of the incident is estimated at EUR 18,400."),
]

PRICE_HEADER = ["Article", "Наименование / Name", "Price, RUB", "VAT", "Valid from", "In stock"]
PRICE_ROWS: list[list[object]] = [
    ["KP-100", "Датчик давления КП-100 / pressure sensor", 8450.5, 0.2, dt.date(2025, 3, 1), 140],
    ["KP-110", "Датчик давления КП-110 с индикатором", 10990, 0.2, dt.date(2025, 3, 1), 65],
    ["TM-20", "Термометр манометрический ТМ-20", 3275.25, 0.2, dt.date(2025, 4, 15), 310],
    ["RV-15", "Расходомер вихревой РВ-15 / vortex flow meter", 48700, 0.2, dt.date(2025, 1, 10), 12],
    ["BK-04", "Блок клапанный БК-04 / valve block", 6120, 0.1, dt.date(2025, 2, 20), 88],
]
DISCOUNT_ROWS: list[list[object]] = [
    ["Order volume, RUB", "Discount"],
    ["from 100000", 0.03],
    ["from 500000", 0.07],
    ["from 1000000", 0.12],
]

SLIDES_RU: list[tuple[str, list[str], list[list[str]], str]] = [
    ("Итоги первого квартала 2025 года", ["Производственный отдел", "Докладчик: Тимур Ахметов"], [], "Начать с благодарности цеху № 3."),
    (
        "Выпуск продукции",
        ["План выполнен на 104 процента", "Доля брака снизилась с 2,6 до 1,9 процента", "Введена вторая смена на участке сборки"],
        [],
        "Брак снизился благодаря новому стенду входного контроля, запущенному 12 февраля.",
    ),
    (
        "Простои оборудования",
        ["Главная причина простоев — ожидание инструмента"],
        [["Участок", "Простой, часов"], ["Литьё", "46"], ["Механическая обработка", "71"], ["Сборка", "18"]],
        "По механической обработке: три станка ждали резцы больше недели.",
    ),
    (
        "Планы на второй квартал",
        ["Запустить склад инструмента до 15 мая", "Обучить 14 операторов", "Бюджет на модернизацию — 6,2 млн рублей"],
        [],
        "Бюджет согласован с финансовым директором 28 марта.",
    ),
]

MAINTENANCE_RU = """# Регламент технического обслуживания компрессора ВК-75

Документ РТО-75, редакция 3 от 05.12.2024. Ответственный: служба главного механика.

## Ежедневное обслуживание

- Проверить уровень масла по смотровому стеклу: не ниже средней отметки.
- Слить конденсат из ресивера в конце смены.
- Записать давление и температуру в журнал.

## Периодическое обслуживание

| Работа | Периодичность | Материал |
| --- | --- | --- |
| Замена масла | 4 000 часов | масло VDL 46, 18 литров |
| Замена воздушного фильтра | 2 000 часов | фильтр ФВ-12 |
| Замена ремней | 8 000 часов | комплект РК-75 |
| Поверка манометра | 1 раз в год | — |

## Предельные параметры

Рабочее давление компрессора — 8 бар, предохранительный клапан срабатывает при 9,5 бар. Температура масла не должна превышать 105 градусов; при 110 градусах автоматика останавливает компрессор.

## Пуск после длительной остановки

После остановки дольше трёх месяцев залейте 0,5 литра масла во всасывающий патрубок и проверните вал вручную не менее пяти оборотов. Только затем включайте двигатель.
"""

CALIBRATION = """Sensor,Location,Calibrated on,Next calibration,Error %,Technician
PT-01,Boiler room,2025-01-14,2026-01-14,0.12,J. Saar
PT-02,Boiler room,2025-01-14,2026-01-14,0.31,J. Saar
FT-07,"Cooling line, hall 2",2024-11-05,2025-11-05,0.48,M. Lepik
TT-11,Server room B,2025-05-12,2025-11-12,0.09,M. Lepik
LT-03,Tank farm,2024-08-30,2025-08-30,1.05,J. Saar
"""

IT_FAQ_RU = """<!DOCTYPE html>
<html lang="ru"><head><meta charset="windows-1251"><title>Вопросы и ответы: рабочее место</title></head>
<body><h1>Вопросы и ответы: рабочее место</h1>
<h2>Как сменить пароль?</h2>
<p>Нажмите Ctrl+Alt+Del и выберите «Изменить пароль». Пароль должен содержать не менее 14 символов и меняется раз в 180 дней.</p>
<h2>Как подключиться к VPN?</h2>
<p>Установите клиент из каталога программ, вставьте токен и войдите на узел vpn.kazpribor.local. Сеанс VPN отключается через 8 часов.</p>
<h2>Что делать, если не печатает принтер?</h2>
<ol><li>Проверьте бумагу и замятие.</li><li>Перезапустите очередь печати.</li><li>Если не помогло, создайте заявку с номером на корпусе принтера.</li></ol>
<h2>Куда обращаться?</h2>
<p>Служба поддержки работает с 8:00 до 20:00, телефон 4-44. Заявки высокой важности принимаются круглосуточно, время реакции — 30 минут.</p>
</body></html>
"""

BACKUP_POLICY = """BACKUP AND RESTORE POLICY

Version 2.1, approved by the head of IT on 3 March 2025.

SCOPE

The policy covers file servers, the mail system, databases of production planning and all virtual machines.

SCHEDULE

Databases are backed up every hour, file servers every night at 01:30, virtual machines every Saturday.
Backups are kept for 35 days; the backup of the last day of a month is kept for 13 months.

STORAGE

One copy stays in server room A. A second, encrypted copy is taken to the bank vault every Monday.
Tapes are labelled with the date and the name of the system, never with the content.

RESTORE TESTS

A restore of one randomly chosen system is tested every quarter. The target recovery time is 4 hours
and the target recovery point is 1 hour. Results are reported to the head of IT within five working days.
"""
