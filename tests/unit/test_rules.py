"""Who may do what: the whole table, written out by hand and compared with what rules.py decides."""

from __future__ import annotations

from itertools import product

import pytest

from agentex.auth.authorize import Decision, Operation, ResourceRef, ResourceType
from agentex.auth.principal import Principal, PrincipalType, agent_principal
from agentex.auth.rules import Facts, Question, Role, decide, in_scope, reads_all, reads_of_agent, reads_own

ALICE = Principal(principal_type=PrincipalType.USER, user_id="alice", account_id="a")
GREETER = agent_principal("a", "greeter")
OTHERS = "user:bob"

# One letter for an operation: Create Read Update Delete eXecute cAncel. What stands behind + is added by
# being the owner; agent's further line is what being the agent, or the agent that something hangs on, adds.
LETTERS = {
    "C": Operation.CREATE,
    "R": Operation.READ,
    "U": Operation.UPDATE,
    "D": Operation.DELETE,
    "X": Operation.EXECUTE,
    "A": Operation.CANCEL,
}
KINDS = ("agent", "task", "schedule", "run", "api_key", "member", "audit")
TABLE = {
    Role.ADMIN: ("CRUDXA", "CRUDXA", "CRUDXA", "CRUDXA", "CRUDXA", "CRUDXA", "CRUDXA"),
    Role.OPERATOR: ("RUXA+CD", "CRUXA+D", "CRUXA+D", "CRUXA+D", "C+RUDXA", "", ""),
    Role.EDITOR: ("CRX+UDA", "CR+UDXA", "CR+UDXA", "CR+UDXA", "C+RUDXA", "", ""),
    Role.VIEWER: ("R", "R", "R", "R", "+RUD", "", ""),
    Role.AGENT: ("RX+CUDA", "C+RUDXA", "+CRUDXA", "+CRUDXA", "+CRUDXA", "", ""),
    None: ("", "", "", "", "", "", ""),
}
OF_THE_AGENT = ("RUX", "RUA", "R", "R", "", "", "")


def ref(kind: ResourceType, owner: str | None = OTHERS, account: str = "a") -> ResourceRef:
    return ResourceRef(kind, "0", account, owner)


def ask(principal: Principal, operation: Operation, resource: ResourceRef, facts: Facts) -> Decision:
    return decide(Question(principal, operation, resource), facts)


def letters(cell: str) -> set[Operation]:
    return {LETTERS[letter] for letter in cell if letter != "+"}


CELLS = [(role, ResourceType(kind), operation) for role, kind, operation in product(TABLE, KINDS, Operation)]


@pytest.mark.parametrize(("role", "kind", "operation"), CELLS)
def test_role_and_ownership(role: Role | None, kind: ResourceType, operation: Operation) -> None:
    cell = TABLE[role][KINDS.index(kind)]
    by_role, _, _ = cell.partition("+")
    facts = Facts(is_member=True, role=role)
    assert ask(ALICE, operation, ref(kind), facts).allowed is (operation in letters(by_role))
    mine = ask(ALICE, operation, ref(kind, ALICE.creator), facts)
    assert mine.allowed is (operation in letters(cell))
    assert not mine.gone


@pytest.mark.parametrize(("kind", "operation"), list(product(ResourceType, Operation)))
def test_an_agent_with_itself_and_what_hangs_on_it(kind: ResourceType, operation: Operation) -> None:
    by_role, _, _ = TABLE[Role.AGENT][KINDS.index(kind)].partition("+")
    expected = letters(by_role) | letters(OF_THE_AGENT[KINDS.index(kind)])
    facts = Facts(is_member=True, role=Role.AGENT, is_of_caller=True)
    assert ask(GREETER, operation, ref(kind), facts).allowed is (operation in expected)


@pytest.mark.parametrize(("role", "granted", "asked"), list(product(TABLE, Operation, Operation)))
def test_a_grant_adds_what_it_names_and_nothing_else(
    role: Role | None, granted: Operation, asked: Operation
) -> None:
    facts = Facts(is_member=True, role=role, granted=frozenset({granted}))
    by_role, _, _ = TABLE[role][KINDS.index("task")].partition("+")
    expected = asked in letters(by_role) or asked is granted
    assert ask(ALICE, asked, ref(ResourceType.TASK), facts).allowed is expected


@pytest.mark.parametrize(("role", "kind", "operation"), CELLS)
def test_scopes_only_take_away(role: Role | None, kind: ResourceType, operation: Operation) -> None:
    facts = Facts(is_member=True, role=role, granted=frozenset({Operation.READ}))
    without = ask(ALICE, operation, ref(kind), facts).allowed
    for scope, covers in (
        ("*", True),
        (f"{kind}.*", True),
        (f"*.{operation}", True),
        (f"{kind}.{operation}", True),
        ("none.of-it", False),
        (f"{kind}", False),
        (f"{operation}.{kind}", False),
    ):
        limited = ALICE.model_copy(update={"scopes": frozenset({scope})})
        assert ask(limited, operation, ref(kind), facts).allowed is (without and covers), scope
    nothing = ALICE.model_copy(update={"scopes": frozenset[str]()})
    assert not ask(nothing, operation, ref(kind), facts).allowed


@pytest.mark.parametrize(("role", "kind", "operation"), CELLS)
def test_nothing_in_another_account_and_nothing_for_who_is_no_member(
    role: Role | None, kind: ResourceType, operation: Operation
) -> None:
    everything = Facts(is_member=True, role=role, granted=frozenset(Operation), is_of_caller=True)
    foreign = ask(ALICE, operation, ref(kind, ALICE.creator, "b"), everything)
    assert foreign == Decision(allowed=False, rule="another account")
    left = Facts(is_member=False, role=role, granted=frozenset(Operation), is_of_caller=True)
    rule = "user:alice is no member of the account, or no longer"
    gone = ask(ALICE, operation, ref(kind, ALICE.creator), left)
    assert gone == Decision(allowed=False, rule=rule, gone=True)


def test_what_nobody_owns_is_not_its_namesakes() -> None:
    facts = Facts(is_member=True, role=Role.EDITOR)
    unowned = ref(ResourceType.TASK, None)
    assert not ask(ALICE, Operation.UPDATE, unowned, facts).allowed
    # A service account and an agent may be called what a user is called.
    for kind in ("service_account", "agent"):
        assert not ask(ALICE, Operation.UPDATE, ref(ResourceType.TASK, f"{kind}:alice"), facts).allowed


@pytest.mark.parametrize(("role", "kind"), list(product(TABLE, ResourceType)))
def test_what_a_role_lists_is_what_it_may_read(role: Role | None, kind: ResourceType) -> None:
    facts = Facts(is_member=True, role=role)
    assert reads_all(role, kind) is ask(ALICE, Operation.READ, ref(kind), facts).allowed
    own = ask(ALICE, Operation.READ, ref(kind, ALICE.creator), facts).allowed
    assert (reads_all(role, kind) or reads_own(role, kind)) is own
    hangs = Facts(is_member=True, role=role, is_of_caller=True)
    of_agent = ask(GREETER, Operation.READ, ref(kind), hangs).allowed
    assert (reads_all(role, kind) or reads_of_agent(role, kind)) is of_agent


def test_rules_say_why() -> None:
    task = ref(ResourceType.TASK)
    assert ask(ALICE, Operation.READ, task, Facts(is_member=True, role=Role.VIEWER)).rule == "role viewer"
    own = ref(ResourceType.TASK, ALICE.creator)
    assert ask(ALICE, Operation.UPDATE, own, Facts(is_member=True, role=Role.EDITOR)).rule == (
        "role editor, owner"
    )
    denied = ask(ALICE, Operation.UPDATE, task, Facts(is_member=True, role=Role.EDITOR))
    assert denied.rule == "user:alice has role editor and no grant of it"
    guest = ask(ALICE, Operation.UPDATE, task, Facts(is_member=True))
    assert guest.rule == "user:alice has no role and no grant of it"
    assert in_scope(None, "task.update")
