"""The wire of a remote authorizer (wire.md §4): one question, and what its answers mean.

200  yes, and what was asked for
401  it does not know who that is      Unauthorized
403  no                                a denial
else, a timeout, no connection, an answer that is not of the contract: AuthorizerUnavailable, to be repeated
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from agentex.auth.outside import Outside, OutsideAnswer
from agentex.auth.principal import Principal, PrincipalType
from agentex.database import JsonObject
from agentex.errors import AuthorizerUnavailable, Forbidden, Unauthorized
from agentex.settings import Settings
from agentex.telemetry.metrics import REMOTE_AUTH_QUESTIONS

ABOUT = "the remote authorizer"
# A search's items: 40 bytes each, so some 100,000 tasks.
MAX_BYTES = 4_194_304
MAX_NAME_LENGTH = 255
_YES, _WHO, _NO = 200, 401, 403
# Done, or done already.
_TOLD = {
    "register": frozenset({200, 201, 204, 409}),
    "grant": frozenset({200, 201, 204, 409}),
    "revoke": frozenset({200, 204, 404}),
    "deregister": frozenset({200, 204, 404}),
}
_FIELDS = ("user_id", "service_account_id", "account_id")


class RemoteCalls:
    """Questions to AGENTEX_REMOTE_AUTH_URL."""

    def __init__(self, settings: Settings) -> None:
        if settings.remote_auth_url is None:
            raise ValueError("there is nobody to ask: AGENTEX_REMOTE_AUTH_URL")
        self._url = settings.remote_auth_url.rstrip("/")
        self._outside = Outside(
            ABOUT, timeout_seconds=settings.remote_auth_timeout_seconds, max_bytes=MAX_BYTES
        )

    async def who(self, headers: Mapping[str, str]) -> Principal:
        """Who calls with these headers; Forbidden for somebody who is known and not let in."""
        answer = await self._ask("/v1/authn", headers=headers)
        if answer.status == _NO:
            raise Forbidden(f"{ABOUT} does not let this caller in")
        return _principal(answer.json_object(ABOUT))

    async def may(self, principal: JsonObject, resource: JsonObject, operation: str) -> bool:
        """Whether the principal may do that."""
        body: JsonObject = {"principal": principal, "resource": resource, "operation": operation}
        answer = await self._ask("/v1/authz/check", body=body)
        return answer.status == _YES

    async def readable(self, principal: JsonObject, kind: str) -> list[str] | None:
        """The selectors of a type that the principal may read; None for all of them."""
        body: JsonObject = {"principal": principal, "filter_resource": kind, "filter_operation": "read"}
        answer = await self._ask("/v1/authz/search", body=body)
        if answer.status == _NO:
            return []
        said = answer.json_object(ABOUT)
        items: Any = said.get("items")
        if said.get("unscoped") is True or ("items" in said and items is None):
            return None
        if not isinstance(items, list):
            raise AuthorizerUnavailable(f"{ABOUT} answered a search with neither items nor unscoped")
        return [item for item in items if isinstance(item, str)]  # pyright: ignore[reportUnknownVariableType] - JSON

    async def tell(self, what: str, body: JsonObject) -> None:
        """register, deregister, grant or revoke; what has been told before may be told again.

        Raises AuthorizerUnavailable for all but yes: what is not told has to be told again.
        """
        answer = await self._answer(f"/v1/authz/{what}", body=body)
        if answer.status not in _TOLD[what]:
            raise AuthorizerUnavailable(f"{ABOUT} answers {answer.status} to {what}")

    async def aclose(self) -> None:
        """Ask no more."""
        await self._outside.aclose()

    async def _ask(
        self, path: str, *, headers: Mapping[str, str] | None = None, body: JsonObject | None = None
    ) -> OutsideAnswer:
        answer = await self._answer(path, headers=headers, body=body)
        if answer.status == _WHO:
            raise Unauthorized(f"{ABOUT} does not know this caller")
        if answer.status not in {_YES, _NO}:
            raise AuthorizerUnavailable(f"{ABOUT} answers {answer.status}; repeat the request")
        return answer

    async def _answer(
        self, path: str, *, headers: Mapping[str, str] | None = None, body: JsonObject | None = None
    ) -> OutsideAnswer:
        try:
            answer = await self._outside.post(f"{self._url}{path}", headers=headers, body=body)
        except AuthorizerUnavailable:
            REMOTE_AUTH_QUESTIONS.labels(path=path, answer="unavailable").inc()
            raise
        REMOTE_AUTH_QUESTIONS.labels(path=path, answer=str(answer.status)).inc()
        return answer


def _principal(said: JsonObject) -> Principal:
    """The principal of an answer. Anything else is a fault of the authorizer's, and lets nobody in."""
    fields = {name: value for name in _FIELDS if (value := said.get(name)) is not None}
    texts = all(
        isinstance(value, str) and 0 < len(value) <= MAX_NAME_LENGTH and value.isprintable()
        for value in fields.values()
    )
    by_id = "user" if "user_id" in fields else "service_account"
    kind = by_id if said.get("principal_type") is None else said["principal_type"]
    named = "user_id" if kind == PrincipalType.USER else "service_account_id"
    # Agents have keys of this service, and are judged by what is known of them here.
    if not texts or kind == PrincipalType.AGENT or "account_id" not in fields or named not in fields:
        raise AuthorizerUnavailable(
            f"{ABOUT} answered no principal: account_id, and user_id or service_account_id, of 1 to "
            f"{MAX_NAME_LENGTH} characters"
        )
    try:
        return Principal.model_validate({**fields, "principal_type": kind})
    except ValidationError:
        raise AuthorizerUnavailable(f"{ABOUT} answered a principal_type that is none") from None
