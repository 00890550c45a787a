"""All scenarios, by chapter."""

from __future__ import annotations

from tests.conformance.scenario import Scenario
from tests.conformance.scenarios_alarms import ALARMS
from tests.conformance.scenarios_gates import GATES
from tests.conformance.scenarios_keys import KEYS, VALUES
from tests.conformance.scenarios_life import LIFE, MESSAGES
from tests.conformance.scenarios_sql import SQL
from tests.conformance.scenarios_sql_rules import LIMITS, RULES
from tests.conformance.scenarios_transactions import TRANSACTIONS

CHAPTERS: dict[str, list[Scenario]] = {
    "Names, calls and errors": MESSAGES,
    "Life": LIFE,
    "Gates": GATES,
    "Transactions": TRANSACTIONS,
    "Key-value": KEYS,
    "Values": VALUES,
    "SQL": SQL,
    "What SQL may do": RULES,
    "Limits of SQL": LIMITS,
    "Alarms": ALARMS,
}

SCENARIOS: list[Scenario] = [one for chapter in CHAPTERS.values() for one in chapter]
