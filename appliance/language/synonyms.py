"""Words that offices use for the same thing, so that a question can meet a clause that words it otherwise.

Owns closed lists for Russian and English business language, written by hand; an encoder does this better where it knows
the language, so the lists stay short. Groups are symmetric: every member may stand for every other.
"""

from typing import Final

from appliance.language.terms import stem, tokenise

_GROUPS: Final = """
contract agreement
end expire expires expiry expiration terminate termination valid
start begin commence commencement effective
price cost fee charge tariff
salary wage remuneration compensation
vacation leave holiday
employee staff worker personnel
customer client buyer
supplier vendor seller contractor
deliver delivery ship shipment
deadline due term period
penalty fine
warranty guarantee guaranteed
repair maintenance servicing
change replace replacement
manager supervisor
sick sickness illness
error fault failure malfunction
weight mass
phone telephone
car vehicle
address location
remote remotely home
notify notification notice
договор контракт соглашение
закончится заканчивается истекает истечение прекращается прекращение окончание действует действителен
начать начало начинается вступает
цена стоимость тариф
зарплата заработная оклад вознаграждение
увольнение уволить расторжение расторгнуть прекращение
сотрудник работник персонал
покупатель заказчик клиент
поставщик продавец подрядчик исполнитель
поставка доставка отгрузка
поставлять доставить отгрузить
оплата платеж оплачивать оплатить платить уплатить уплачивать выплата выплачивать
срок период дата течение
длиться длится составлять составляет продолжительность длительность
сдать сдавать сдача представить представлять
подать подавать подача
выдать выдавать выдача
внести вносить внесение
провести проводить проведение
передать передавать передача
принять принимать прием приемка
вернуть возвращать возврат возвратить
проверить проверять проверка
установить устанавливать установка
утвердить утверждать утверждение
подписать подписывать подписание
хранить хранение
штраф неустойка пеня
ремонт обслуживание
менять замена заменить замену заменять
начальник руководитель директор
автомобиль машина
ошибка неисправность сбой отказ
масса вес
больничный болезнь нетрудоспособность
удаленно дистанционно удаленный дистанционный
адрес местонахождение
уведомить уведомление предупредить предупреждение известить
"""
STRENGTH: Final = 0.6
"""What a synonym counts against the word itself: above a half, because the lists are short and near-exact."""


def _table() -> dict[str, tuple[str, ...]]:
    table: dict[str, dict[str, None]] = {}
    for line in _GROUPS.strip().splitlines():
        stems = list(dict.fromkeys(stem(token) for token in tokenise(line)))
        for term in stems:
            table.setdefault(term, {}).update(dict.fromkeys(other for other in stems if other != term))
    return {term: tuple(others) for term, others in table.items()}


_SYNONYMS: Final = _table()


def synonyms(term: str) -> tuple[str, ...]:
    """Index terms that may stand for `term`; empty for most."""
    return _SYNONYMS.get(term, ())
