"""What the client does where the authorizer does not answer: it asks again after a while, then raises."""

from __future__ import annotations

import time

from agentex import InternalServerError

from calls import raises, settle


async def check_asked_again_when_told_to(api):
    before, start = len(api.requests), time.monotonic()
    patient = api.client.with_options(max_retries=1)
    error = await raises(InternalServerError, retrieve(patient))
    assert error.status_code == 503
    assert error.body["message"] != ""
    asked = api.requests[before:]
    assert [request.headers["x-stainless-retry-count"] for *_, request, _ in asked] == ["0", "1"]
    # As long as Retry-After says.
    assert time.monotonic() - start >= float(error.response.headers["retry-after"])


async def check_not_asked_again_when_the_caller_will_not(api):
    before = len(api.requests)
    await raises(InternalServerError, retrieve(api.client.with_options(max_retries=0)))
    assert len(api.requests) == before + 1


async def retrieve(client):
    return await settle(client.agents.retrieve_by_name("greeter"))
