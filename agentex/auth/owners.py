"""To whom something may be given: a member that may do what it is then to do in its own name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import AuthProvider, Operation, ResourceRef
from agentex.auth.principal import Principal, PrincipalType, named
from agentex.errors import BadRequest, InvalidInput, NotFound

MemberName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=300),
    Field(
        description="A member of the account: its kind and its name, such as user:alice, service_account:ci "
        "or agent:greeter",
        examples=["user:bob"],
    ),
]


class Transfer(BaseModel):
    """Whose something is to be from now on."""

    owner: MemberName


async def new_owner(
    session: AsyncSession,
    authz: AuthProvider,
    principal: Principal,
    name: str,
    needs: Sequence[tuple[Operation, ResourceRef]],
) -> Principal:
    """The member of the caller's account of this name, that may do all that an owner needs to.

    Raises InvalidInput for no name of a member, NotFound for one that there is not, BadRequest for one that
    may not. `session` is one of `db.read()` (see authorize.require).
    """
    found = named(principal.account_id, name)
    if found is None:
        kinds = ", ".join(f"{kind}:NAME" for kind in PrincipalType)
        raise InvalidInput("owner", f"{name[:80]!r} names no member; it is one of {kinds}")
    for operation, resource in needs:
        decision = await authz.authorize(session, found, operation, resource)
        if decision.gone:
            raise NotFound(f"member {name!r} not found")
        if not decision.allowed:
            raise BadRequest(
                f"owner: {name} cannot have it, for it may not {operation} {resource.type} {resource.id}: "
                f"{decision.rule}"
            )
    return found
