"""Phrases that try to take a model over, in Russian and English. Data only; scoring is in ``injection``.

A rule: kind, weight (how sure that this is no ordinary text), substrings of which one must stand in the lower-case text, pattern. Patterns look at folded
lower-case text; every repetition in them is bounded, so that a search is linear.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Rule:
    """One family of phrases."""

    kind: str
    weight: float
    gates: tuple[str, ...]
    pattern: re.Pattern[str]


_G: Final = r"[\s\W_]{1,6}"  # between two words
_FEW: Final = rf"(?:\w{{1,24}}{_G}){{0,4}}?"
_RULES_EN: Final = r"(?:instructions?|prompts?|rules?|directions?|directives?|guidelines?|constraints?|restrictions?|safeguards?|policies|polic(?:y|ies)|training|programming)"
_RULES_RU: Final = r"(?:инструкци\w{0,3}|указани\w{0,3}|правил\w{0,3}|промпт\w{0,3}|команд\w{0,2}|ограничени\w{0,3}|запрет\w{0,3}|установк\w{0,3}|предписани\w{0,3}|распоряжени\w{0,3})"
_SHOW_EN: Final = r"\b(?:reveal|show|print|repeat|output|display|disclose|recite|leak|dump|tell\s{1,3}me|give\s{1,3}me|write\s{1,3}(?:out|down)|copy|translate|summari[sz]e|encode|what\s{1,3}(?:is|are|was|were))\b"
_SHOW_RU: Final = r"\b(?:покажи\w{0,2}|выведи\w{0,2}|повтори\w{0,2}|напечатай\w{0,2}|раскрой\w{0,2}|скажи\w{0,2}|перескажи\w{0,2}|процитируй\w{0,2}|напиши\w{0,2}|выдай\w{0,2}|переведи\w{0,2}|закодируй\w{0,2}|какой|каков\w{0,2}|какие)\b"


def _rule(kind: str, weight: float, gates: str, pattern: str, flags: int = 0) -> Rule:
    return Rule(kind, weight, tuple(gates.split("|")), re.compile(pattern, flags))


RULES: Final[tuple[Rule, ...]] = (
    _rule(
        "override_instructions", 0.9, "instruction|prompt|rule|direction|directive|guideline|constraint|restriction|safeguard|polic|training|programming",
        rf"\b(?:ignor(?:e|ing)|disregard(?:ing)?|forget|overrid(?:e|ing)|bypass|discard|drop|do\s{{1,3}}not\s{{1,3}}follow|don't\s{{1,3}}follow|stop\s{{1,3}}following|skip|cancel|erase){_G}"
        rf"{_FEW}(?:previous|prior|above|preceding|earlier|all|any|your|system|these|those|original|initial|existing|former|safety){_G}{_FEW}{_RULES_EN}\b",
    ),
    _rule(
        "override_instructions", 0.9, "previous|prior|above|everything|сказан|выше|предыдущ|раньше",
        rf"\b(?:ignore|disregard|forget){_G}(?:about{_G})?(?:everything|anything|all|what){_G}{_FEW}(?:above|before|previous(?:ly)?|prior|said|told|earlier)\b"
        rf"|\b(?:игнорируй\w{{0,2}}|забудь\w{{0,2}}|проигнорируй\w{{0,2}}|не\sучитывай\w{{0,2}}){_G}(?:вс[её]|то){_G}{_FEW}(?:выше|раньше|до\sэтого|прежде|сказан\w{{1,3}}|написан\w{{1,3}}|предыдущ\w{{1,3}})\b",
    ),
    _rule(
        "override_instructions", 0.9, "инструкци|указани|правил|промпт|команд|ограничени|запрет|установк|предписани|распоряжени",
        rf"\b(?:(?:про)?игнорир(?:уй|уйте|овать|уя)|забудь(?:те)?|отмени(?:те)?|отбрось(?:те)?|не{_G}следуй(?:те)?|не{_G}соблюдай(?:те)?|не{_G}обращай(?:те)?{_G}внимани\w{_G}на|пренебреги(?:те)?|нарушь(?:те)?|обойди(?:те)?|сбрось(?:те)?|не{_G}учитывай(?:те)?|перестань(?:те)?{_G}(?:соблюдать|следовать|выполнять)){_G}"
        rf"{_FEW}(?:предыдущ\w{{1,3}}|прошл\w{{1,3}}|прежн\w{{1,3}}|все|всех|всеми|вс[её]|любые|свои\w{{0,2}}|твои\w{{0,2}}|ваши\w{{0,2}}|данн\w{{1,3}}|системн\w{{1,3}}|выше\w{{0,12}}|эти\w{{0,2}}|исходн\w{{1,3}}|начальн\w{{1,3}}|встроенн\w{{1,3}}){_G}{_FEW}{_RULES_RU}\b",
    ),
    _rule(
        "role_play", 0.55, "you are|act as|pretend|developer mode|jailbreak|unrestricted|god mode|do anything now",
        rf"\byou{_G}are{_G}(?:now|no{_G}longer){_G}|\b(?:act|behave|respond|roleplay){_G}as{_G}(?:if{_G}you{_G}(?:were|are|had){_G})?(?:(?:a|an|the|my){_G})?{_FEW}(?:dan|root|admin(?:istrator)?|system|developer|unrestricted|unfiltered|jailbroken|evil|hacker|no{_G}(?:rules|restrictions))\b"
        rf"|\bpretend{_G}(?:to{_G}be|you{_G}are|that{_G}you)\b|\b(?:developer|debug|god|maintenance|sudo|unrestricted){_G}mode\b|\bjailb(?:reak|roken)\b|\bdo{_G}anything{_G}now\b",
    ),
    _rule(
        "role_play", 0.55, "ты теперь|теперь ты|представь|притвори|режим|веди себя|роль|отныне",
        rf"\b(?:ты{_G}теперь|теперь{_G}ты|отныне{_G}ты){_G}|\bпредставь(?:те)?{_G}что{_G}(?:ты|вы)\b|\bпритвори(?:сь|тесь)\b|\bведи{_G}себя{_G}как\b|\bрежим\w{{0,2}}{_G}(?:разработчика|отладки|бога|администратора|без{_G}ограничений)|\b(?:войди|сыграй){_G}(?:в{_G})?роль",
    ),
    _rule(
        "system_spoof", 0.6, "system|assistant|instruction|систем|инструкци|ассистент|developer",
        r"(?:^|\n)[\s#>*\[(_-]{0,8}(?:system\s(?:message|prompt|note|override|update)|new\s(?:system\s)?(?:instructions?|task|rules?)|"
        r"системн(?:ое\sсообщение|ый\sпромпт)|нов(?:ые|ая)\s(?:инструкци[ия]|указания|задача|правила))[\s\])*_]{0,4}:"
        r"|\b(?:new|updated|real|actual)\s(?:system\s)?instructions?\s{0,2}(?:follow|are|begin|from|:)|\bнов(?:ые|ая)\sинструкци[ия]\s{0,2}(?::|от\s(?:администратор|разработчик|систем))",
    ),
    _rule("role_heading", 0.4, "system|assistant|developer|систем|ассистент", r"(?:^|\n)[\s#>*\[(_-]{0,8}(?:system|assistant|developer|система|ассистент)[\s\])*_]{0,4}:"),
    _rule(
        "template_token", 0.9, "<|||[inst|[/inst|<<sys|start_of_turn|end_of_turn|</s>|<｜|[system|im_start|[available_tools",
        r"<\s?\|[\w\s/-]{1,40}\|\s?>|\[\s?/?\s?(?:inst|sys|available_tools|tool_calls|system)\s?\]|<</?\s?sys\s?>>|<(?:start|end)_of_turn>|</s>|<｜[^｜\n]{1,40}｜>",
    ),
    _rule(
        "prompt_extraction", 0.8, "prompt|instruction|above|rules|guidelines",
        rf"{_SHOW_EN}{_G}{_FEW}(?:system{_G}(?:prompt|message|instructions?)|(?:your|initial|original|hidden|secret|internal|first){_G}{_FEW}(?:prompts?|instructions?|guidelines|rules|system{_G}message)|(?:text|words|everything|all|lines?|messages?){_G}{_FEW}above)\b",
    ),
    _rule(
        "prompt_extraction", 0.8, "промпт|инструкци|указани|выше|сообщени|правила",
        rf"{_SHOW_RU}{_G}{_FEW}(?:системн\w{{1,3}}{_G}(?:промпт\w{{0,3}}|сообщени\w{{1,3}}|инструкци\w{{1,3}}|подсказк\w{{1,2}})|(?:сво[ийюе]\w{{0,3}}|тво[ийюе]\w{{0,3}}|ваш\w{{0,3}}|начальн\w{{1,3}}|исходн\w{{1,3}}|скрыт\w{{1,3}}|внутренн\w{{1,3}}){_G}{_FEW}(?:промпт\w{{0,3}}|инструкци\w{{1,3}}|указани\w{{1,3}}|правила)|(?:текст|вс[её]|слова|строки){_G}{_FEW}выше)\b",
    ),
    _rule(
        "exfiltration", 0.7, "http|webhook|url|e-mail|email|server|адрес|ссылк|сервер|почт|картинк|изображени",
        rf"\b(?:send|post|upload|forward|exfiltrate|e-?mail|submit|transmit|append|embed|leak){_G}(?:\w{{1,24}}{_G}){{0,10}}?(?:to|at|in|into|as|via){_G}{_FEW}(?:https?\b|webhook|an?{_G}url|the{_G}url|the{_G}following{_G}(?:url|address|server)|image{_G}url|external{_G}server|my{_G}(?:server|e-?mail))"
        rf"|\b(?:отправь|отправьте|перешли|перешлите|загрузи|загрузите|передай|передайте|вставь|вставьте|добавь|добавьте|выложи|подставь){_G}(?:\w{{1,24}}{_G}){{0,10}}?(?:на|по|в|через|к){_G}{_FEW}(?:https?\b|внешн\w{{1,3}}{_G}(?:адрес|сервер|почт)\w{{0,2}}|адресу?{_G}https?|url|вебхук\w{{0,2}}|ссылк\w{{1,2}}{_G}{_FEW}(?:картинк|изображени)|(?:картинк|изображени)\w{{1,3}}{_G}{_FEW}(?:ссылк|адрес|https?|url))",
    ),
    _rule(
        "exfiltration", 0.8, "![",
        r"!\[[^\]\n]{0,100}\]\(\s?(?:https?:)?//[^\s)]{1,200}[?&=/]\s?(?:\{|\[|<|\$|%7b|data\b|secret|answer|summary|conversation|данные|ответ)",
    ),
    _rule(
        "secrecy", 0.5, "user|human|anyone|пользовател|человек|никому|mention",
        rf"\b(?:do{_G}not|don't|don’t|never|without){_G}(?:tell(?:ing)?|inform(?:ing)?|mention(?:ing)?|reveal(?:ing)?|notify(?:ing)?|alert(?:ing)?|show(?:ing)?){_G}(?:this{_G}|it{_G}|that{_G}|any{_G}of{_G}this{_G})?(?:to{_G})?(?:the{_G})?(?:user|human|anyone)\b"
        rf"|\bне{_G}(?:говори|сообщай|показывай|упоминай|рассказывай)(?:те)?{_G}(?:об{_G}этом{_G}|это{_G}|этого{_G})?(?:никому|пользовател\w{{1,3}}|человеку)\b|\bвтайне{_G}от{_G}пользовател",
    ),
    _rule(
        "tool_spoof", 0.7, 'tool_call|function_call|"arguments"|tool output|tool result|<tool|<function|<invoke|tool_response',
        r"</?\s?(?:tool_calls?|function_calls?|tool_response|tool_result|function=|invoke\b|tools?>)|\"(?:tool_calls|function_call)\"\s?:|\{\s{0,4}\"name\"\s?:\s?\"[\w.-]{1,64}\"\s?,\s{0,4}\"(?:arguments|parameters)\"\s?:|(?:^|\n)\s{0,4}tool\s(?:output|result)\s?:",
    ),
    _rule(
        "hidden_text", 0.5, "display:none|display: none|font-size:0|font-size: 0|visibility:hidden|visibility: hidden|color:white|color: white|color:#fff|color: #fff|opacity:0|opacity: 0",
        r"(?:display:\s?none|font-size:\s?0|visibility:\s?hidden|color:\s?(?:white|#fff(?:fff)?)\b|opacity:\s?0(?![.\d]))",
    ),
)  # fmt: skip
