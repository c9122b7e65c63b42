"""Function words of Russian and English, and a few of the neighbours that share the Latin script.

Owns closed word classes only (pronouns, prepositions, auxiliaries, question words); no content word is ever listed.
Written by hand from grammars; casefolded, with `ё` written `е`, because that is what the tokeniser emits.
"""

from typing import Final

ENGLISH: Final = frozenset(
    """a an the this that these those here there it its itself he him his himself she her hers herself they them their
    theirs themselves we us our ours you your yours i me my mine myself one one's s t d ll re ve
    of in on at to for from by with as into onto over under out up down off about between during after before through
    within without against among upon per via
    is are was were be been being am do does did done doing has have had having will would shall should can could may
    might must and or not no nor but if then than so such while also just only own same very too any some each both all
    more most another other please tell
    what which who whom whose when where why how many much often""".split()  # noqa: SIM905  a word list reads better as text
)

RUSSIAN: Final = frozenset(
    """а бы был была были было быть будет будут в во вам вас ваш ваша ваше ваши весь вот все всего всей всем всех всю вся вы
    где да даже для до его ее еще ею если есть же за зачем здесь и из или им ими их к ко как какая какие каким какими
    каких какое каков какова каково каковы какого какой каком какому какую когда кого кому кто ком кем которая которого
    которое которой котором которому которую которые который которым которыми которых куда ли либо между мне мной мои
    мой мою моя мы на над нам нами нас наш наша наше наши не него нее ней нем нему нет ни ним ними них но ну о об обо
    однако он она они оно от откуда по под подо почему при про с со свое своего своей своем своему свои своим своими
    своих свой свою себе себя сколько скольких скольким так такая также такие таким таких такое такой там те тем теми тех то
    тобой того тоже той только том тому тот ту ты у уже хотя чего чей чем чему что чтобы чье чьи чья эта эти этим
    этими этих это этого этой этом этому этот эту я являлась являлись являлось являлся является являются
    часто долго можно нужно надо необходимо следует нельзя должен должна должно должны может могут мог могла могли могло
    пожалуйста скажи скажите подскажите""".split()  # noqa: SIM905  a word list reads better as text
)

FOREIGN_LATIN: Final = frozenset(
    """der die das und ist ein eine einen nicht wie wo wer wann warum welche welcher welches für von mit auf dem den
    le la les est et un une des du que qui quel quelle où quand comment pourquoi combien dans pour avec sur
    el los las es y del quién cuál cuándo dónde cuánto cuántos por para con una qué cómo
    il lo gli che è di chi quale quando dove perché quanto per con nel della
    o os ao da do em uma não quem qual onde como quanto
    het een van wat wie waar wanneer hoe welke jest co kto gdzie kiedy jak który""".split()  # noqa: SIM905  a word list reads better as text
)
"""Words that mark German, French, Spanish, Italian, Portuguese, Dutch or Polish text (used only to answer `other`)."""

STOP_WORDS: Final = ENGLISH | RUSSIAN
