"""Common verbs in both numbers, for models that know more of them than sentences here use."""

from __future__ import annotations

_REGULAR = """
    accept act add admit agree allow announce answer appear argue arrive ask attack attend avoid
    become begin behave believe belong bend break bring build burn buy call care cause change
    choose claim clean climb close collect compare complain consider contain continue control cook
    cost cover create cut decide deliver depend describe deserve differ discover disappear draw
    dream drink drive drop earn eat enjoy enter exist expect explain face fail fall fear feed feel
    fight fill find follow force forget form gain get grow hang happen hate hear hide hit hold hope
    hurt imagine improve include increase insist intend involve join jump keep kick kill lack last
    lead learn leave lie lift listen live lose maintain manage matter mean meet mention mind
    move notice occur offer open order own pay perform pick plan point prefer prepare present
    prevent produce promise protect prove provide pull put raise receive recognize refer refuse
    remain remember remind remove represent require respond rest return reveal ride rise say seem
    sell send serve set share shine shoot show sign sit sound spend stand start stay stop
    struggle succeed suffer suggest support suppose survive tell tend think throw travel treat turn
    understand use visit vote wear win wonder
"""

_ENDING_IN_ES = """
    catch discuss do express finish go guess match miss pass push reach search stress switch teach
    touch wash watch wish
"""

_ENDING_IN_Y = "apply carry cry deny fly identify marry satisfy study supply try vary worry"

COMMON_VERBS: tuple[tuple[str, str], ...] = (
    *((f"{verb}s", verb) for verb in _REGULAR.split()),
    *((f"{verb}es", verb) for verb in _ENDING_IN_ES.split()),
    *((f"{verb[:-1]}ies", verb) for verb in _ENDING_IN_Y.split()),
)
"""Singular and plural."""
