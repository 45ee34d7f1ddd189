"""What the dev stack keeps in its folder."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from agentex.dev.folder import secret_key
from agentex.settings import Settings


def test_the_secret_key_is_made_once_for_its_user_alone(tmp_path: Path) -> None:
    # What a start left that was killed while it wrote.
    (tmp_path / "secret_key.new").write_text("half")

    made, again = secret_key(tmp_path), secret_key(tmp_path)

    assert made == again
    assert [path.name for path in tmp_path.iterdir()] == ["secret_key"]
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600
    assert Settings(secret_key=SecretStr(made)).secret_key is not None
    other = tmp_path / "other"
    other.mkdir()
    assert secret_key(other) != made
