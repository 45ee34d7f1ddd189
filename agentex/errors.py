"""Every error that this service raises on purpose.

AgentexError                     500  internal
├── InvalidInput                 422  invalid-input       a field, its value, what would be right
├── BadRequest                   400  bad-request         permanent conflict or impossible operation
│   ├── AlreadyExists            400  already-exists      (never 409: clients repeat a 409)
│   └── AgentNotDeployed         400  agent-not-deployed  there is nobody to call yet
├── Unauthorized                 401  unauthorized        no credential, or one that opens nothing
├── Forbidden                    403  forbidden
├── NotFound                     404  not-found
├── RequestTimeout               408  request-timeout     the body did not arrive in time; retryable
├── PreconditionFailed           412  precondition-failed
├── PayloadTooLarge              413  payload-too-large
├── UriTooLong                   414  uri-too-long
├── RateLimited                  429  rate-limited        too many requests; retryable
├── HeadersTooLarge              431  headers-too-large
├── Unavailable                  503  unavailable         retryable
│   ├── DatabaseUnavailable      503  database-unavailable
│   ├── AuthorizerUnavailable    503  authorizer-unavailable
│   └── SecretUnreadable         503  secret-unreadable   AGENTEX_SECRET_KEY is not the one it was kept with
└── AgentCallFailed              502  what an agent did to a call (wire: design.md §4, table)
    ├── AgentUnreachable         502  agent-unreachable   certainly not begun; retryable
    │   └── AgentAddressRefused  502  agent-address-refused  agents may not live there
    ├── AgentError               502  agent-error         answered 5xx, 408 or a JSON-RPC server error
    ├── AgentRejected            502  agent-rejected      answered another 4xx or -32600…-32602
    │   └── AgentMethodUnknown   502  agent-rejected      -32601: it has no such method
    ├── AgentProtocolError       502  agent-protocol      garbage, wrong id
    └── OutcomeUnknown           504  outcome-unknown     no answer after the request was written
"""

from __future__ import annotations

from typing import ClassVar


class AgentexError(Exception):
    """Something went wrong on our side."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or self.code).splitlines()[0]
        super().__init__(self.message)


class InvalidInput(AgentexError):
    """A field of the request is not valid."""

    status = 422
    code = "invalid-input"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class BadRequest(AgentexError):
    """The request cannot be carried out as things stand."""

    status = 400
    code = "bad-request"


class AlreadyExists(BadRequest):
    """Something with this name already exists."""

    code = "already-exists"


class AgentNotDeployed(BadRequest):
    """The agent is only known from its build (POST /agents/register-build); it has no address yet."""

    code = "agent-not-deployed"


class Unauthorized(AgentexError):
    """The request carries no credential, or one that opens nothing here."""

    status = 401
    code = "unauthorized"


class Forbidden(AgentexError):
    """The caller may read this but not do that to it."""

    status = 403
    code = "forbidden"


class NotFound(AgentexError):
    """There is nothing with this id or name that the caller can see."""

    status = 404
    code = "not-found"


class PreconditionFailed(AgentexError):
    """The object has changed since the version named in If-Match."""

    status = 412
    code = "precondition-failed"


class PayloadTooLarge(AgentexError):
    """The request's body is larger than this server accepts."""

    status = 413
    code = "payload-too-large"


class RequestTimeout(AgentexError):
    """The request's body did not arrive in time; repeat it."""

    status = 408
    code = "request-timeout"
    retryable = True


class UriTooLong(AgentexError):
    """The request's path or query is longer than this server accepts."""

    status = 414
    code = "uri-too-long"


class RateLimited(AgentexError):
    """Too many requests; repeat it later."""

    status = 429
    code = "rate-limited"
    retryable = True

    def __init__(self, message: str | None = None, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class HeadersTooLarge(AgentexError):
    """The request has more or larger headers than this server accepts."""

    status = 431
    code = "headers-too-large"


class Unavailable(AgentexError):
    """A part this request needs does not answer just now; repeat it."""

    status = 503
    code = "unavailable"
    retryable = True
    retry_after_seconds: ClassVar[int] = 2


class DatabaseUnavailable(Unavailable):
    """The database does not answer just now; repeat the request."""

    code = "database-unavailable"


class AuthorizerUnavailable(Unavailable):
    """The authorizer does not answer just now; repeat the request."""

    code = "authorizer-unavailable"


class SecretUnreadable(Unavailable):
    """A kept secret cannot be read with the AGENTEX_SECRET_KEY of this process; its operator has to act."""

    code = "secret-unreadable"


class AgentCallFailed(AgentexError):
    """A call to an agent did not end well."""

    status = 502
    code = "agent-call-failed"


class AgentUnreachable(AgentCallFailed):
    """The agent certainly did not begin: refused, DNS, TLS, 429, or 503 with Retry-After."""

    code = "agent-unreachable"
    retryable = True

    def __init__(self, message: str | None = None, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class AgentAddressRefused(AgentUnreachable):
    """The agent's address is not called: agents may not live there (AGENTEX_AGENT_NETWORKS).

    Retryable as any that was not begun: a name may get another address, and the agent may register another.
    """

    code = "agent-address-refused"


class AgentError(AgentCallFailed):
    """The agent answered with a server error."""

    code = "agent-error"


class AgentRejected(AgentCallFailed):
    """The agent refused the request as invalid."""

    code = "agent-rejected"


class AgentMethodUnknown(AgentRejected):
    """The agent has no such method."""


class AgentProtocolError(AgentCallFailed):
    """The agent's answer is not valid ACP."""

    code = "agent-protocol"


class OutcomeUnknown(AgentCallFailed):
    """The request was written and no answer came, so the agent may have begun."""

    status = 504
    code = "outcome-unknown"
