"""members as a resource"""

from __future__ import annotations

from alembic import op

revision = '0010'
down_revision = '0009'
branch_labels = None
depends_on = None

KINDS = "'agent', 'task', 'schedule', 'run', 'api_key'"


def upgrade() -> None:
    op.drop_constraint(op.f('ck_grants_resource_type'), 'grants', type_='check')
    op.create_check_constraint(op.f('ck_grants_resource_type'), 'grants', f"resource_type IN ({KINDS}, 'member')")


def downgrade() -> None:
    op.execute("DELETE FROM grants WHERE resource_type = 'member'")
    op.drop_constraint(op.f('ck_grants_resource_type'), 'grants', type_='check')
    op.create_check_constraint(op.f('ck_grants_resource_type'), 'grants', f"resource_type IN ({KINDS})")
