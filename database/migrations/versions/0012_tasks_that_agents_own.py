"""tasks that agents own"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0012'
down_revision = '0011'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index('ix_tasks_owner_created_at', 'tasks', ['account_id', 'owner', sa.literal_column('created_at DESC'), sa.literal_column('id DESC')], unique=False, postgresql_where=sa.text("owner LIKE 'agent:%'"))


def downgrade() -> None:
    op.drop_index('ix_tasks_owner_created_at', table_name='tasks', postgresql_where=sa.text("owner LIKE 'agent:%'"))
