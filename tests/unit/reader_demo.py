"""Short office texts written for these tests, with questions a person would ask: the reader's independent sanity set.

`DOCUMENTS`: (document name, heading path, text). `ANSWERABLE`: (question, text that must be inside a quote, number of the
document). `UNANSWERABLE`: questions about the same subjects that no document answers.
"""

from typing import Final

DOCUMENTS: Final = (
    (
        "Supply contract 17-B.docx",
        ("Supply contract No. 17-B", "7. Term"),
        (
            "This Agreement comes into force on the date of signature. This Agreement is valid until 31 December 2027. If neither "
            "party objects in writing 30 days before that date, it is extended for one more year."
        ),
    ),
    (
        "Supply contract 17-B.docx",
        ("Supply contract No. 17-B", "4. Payment"),
        (
            "The Buyer pays each invoice within 45 calendar days of receipt. For late payment the Buyer pays a penalty of 0.1% of "
            "the overdue amount for each day of delay, but no more than 10% of the price of the goods."
        ),
    ),
    (
        "Supply contract 17-B.docx",
        ("Supply contract No. 17-B", "5. Delivery"),
        (
            "The Supplier delivers the goods to the Buyer's warehouse in Rotterdam. Risk passes to the Buyer when the goods are "
            "unloaded. Acceptance is documented by a signed delivery note."
        ),
    ),
    (
        "HR policy.md",
        ("HR policy", "Leave"),
        (
            "Every employee is entitled to 28 calendar days of paid annual leave. Requests are submitted to the line manager at "
            "least two weeks in advance. Unused days may be carried over until 31 March of the next year."
        ),
    ),
    (
        "HR policy.md",
        ("HR policy", "Remote work"),
        (
            "Employees may work from home up to three days a week with the consent of their manager. The employee must be "
            "reachable between 10:00 and 16:00. Equipment is provided by the IT department."
        ),
    ),
    (
        "Price list 2026.xlsx",
        ("Price list 2026",),
        (
            "| Item | Article | Price, EUR | Warranty |\n|---|---|---|---|\n| Centrifugal pump P-100 | 40110 | 1,250 | 24 months |\n"
            "| Centrifugal pump P-200 | 40120 | 1,980 | 24 months |\n| Pressure sensor S-5 | 40310 | 85 | 12 months |"
        ),
    ),
    (
        "Pump P-200 manual.pdf",
        ("Pump P-200 operating manual", "3 Maintenance"),
        (
            "Change the oil every 500 operating hours. Use only ISO VG 46 oil. Before any maintenance, switch the pump off and wait "
            "until the pressure gauge shows zero. Error E07 means that the motor is overheated; let the pump cool for 30 minutes."
        ),
    ),
    (
        "Договор аренды.docx",
        ("Договор аренды № 42", "2. Срок аренды"),
        (
            "Настоящий договор заключён сроком на 11 месяцев и действует до 30 сентября 2026 г. Арендатор, надлежащим образом "
            "исполнявший обязанности, имеет преимущественное право на заключение договора на новый срок."
        ),
    ),
    (
        "Договор аренды.docx",
        ("Договор аренды № 42", "3. Арендная плата"),
        (
            "Арендная плата составляет 120 000 рублей в месяц, включая НДС 20 %. Плата вносится не позднее 5-го числа каждого "
            "месяца. За просрочку платежа начисляется неустойка в размере 0,1 % за каждый день просрочки."
        ),
    ),
    (
        "Договор поставки.docx",
        ("Договор поставки № 17", "4. Порядок расчётов"),
        (
            "Покупатель оплачивает товар в течение 15 банковских дней с даты получения счёта. Оплата производится безналичным "
            "переводом. Датой оплаты считается дата списания денежных средств со счёта Покупателя."
        ),
    ),
    (
        "Положение о персонале.md",
        ("Положение о персонале", "Отпуск"),
        (
            "Ежегодный оплачиваемый отпуск составляет 28 календарных дней. Заявление подаётся руководителю не позднее чем за две "
            "недели до начала отпуска. График отпусков утверждает Мария Ковалёва, начальник отдела кадров."
        ),
    ),
    (
        "Положение о персонале.md",
        ("Положение о персонале", "Удалённая работа"),
        (
            "Работник вправе трудиться дистанционно до трёх дней в неделю с согласия руководителя. В эти дни он должен быть на "
            "связи с 10:00 до 16:00. Оборудование выдаёт отдел информационных технологий."
        ),
    ),
    (
        "Прайс-лист.xlsx",
        ("Прайс-лист 2026",),
        (
            "| Наименование | Артикул | Цена, руб. | Гарантия |\n|---|---|---|---|\n| Насос ЦН-100 | 40110 | 118 500 | 24 месяца |\n"
            "| Насос ЦН-200 | 40120 | 187 000 | 24 месяца |\n| Датчик давления Д-5 | 40310 | 8 200 | 12 месяцев |"
        ),
    ),
    (
        "Руководство ЦН-200.pdf",
        ("Насос ЦН-200. Руководство по эксплуатации", "3 Техническое обслуживание"),
        (
            "Замену масла проводят через каждые 500 часов работы. Применяйте только масло ISO VG 46. Код ошибки E07 означает "
            "перегрев двигателя: остановите насос и дайте ему остыть в течение 30 минут."
        ),
    ),
)

ANSWERABLE: Final = (
    ("When does the supply contract end?", "31 December 2027", 0),
    ("How long does the buyer have to pay an invoice?", "45 calendar days", 1),
    ("What is the penalty for late payment?", "0.1%", 1),
    ("Where are the goods delivered?", "Rotterdam", 2),
    ("How many days of annual leave do employees get?", "28 calendar days", 3),
    ("Until when can unused leave days be carried over?", "31 March", 3),
    ("How many days a week may employees work from home?", "three days a week", 4),
    ("What is the price of the P-200 pump?", "1,980", 5),
    ("What does error E07 mean?", "motor is overheated", 6),
    ("How often should the pump oil be changed?", "every 500 operating hours", 6),
    ("До какого числа действует договор аренды?", "30 сентября 2026 г.", 7),
    ("Какой размер арендной платы?", "120 000 рублей", 8),
    ("Какая неустойка за просрочку платежа?", "0,1 %", 8),
    ("Какой срок оплаты товара?", "15 банковских дней", 9),
    ("Сколько дней длится ежегодный отпуск?", "28 календарных дней", 10),
    ("Кто утверждает график отпусков?", "Мария Ковалёва", 10),
    ("Сколько дней в неделю можно работать удалённо?", "трёх дней в неделю", 11),
    ("Сколько стоит насос ЦН-200?", "187 000", 12),
    ("Что означает код ошибки E07?", "перегрев двигателя", 13),
    ("Как часто нужно менять масло?", "500 часов", 13),
)

UNANSWERABLE: Final = (
    "Who is the chief executive of the supplier?",
    "What is the colour of the pressure sensor housing?",
    "How much is the Christmas bonus?",
    "What is the maximum flow rate of the P-300 compressor?",
    "Which court settles disputes between the parties?",
    "Кто является генеральным директором поставщика?",
    "Сколько парковочных мест выделено арендатору?",
    "Какая премия выплачивается к Новому году?",
    "Какой напор создаёт компрессор КВ-300?",
    "В каком суде рассматриваются споры сторон?",
)
