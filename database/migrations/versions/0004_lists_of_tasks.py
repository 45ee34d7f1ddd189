"""indexes for lists of tasks"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0004'
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index('ix_tasks_account_id_status_created_at', 'tasks', ['account_id', 'status', sa.literal_column('created_at DESC'), sa.literal_column('id DESC')], unique=False)
    op.create_index('ix_tasks_account_id_updated_at', 'tasks', ['account_id', sa.literal_column('updated_at DESC'), sa.literal_column('id DESC')], unique=False)
    op.create_index('ix_tasks_task_metadata', 'tasks', ['task_metadata'], unique=False, postgresql_using='gin', postgresql_ops={'task_metadata': 'jsonb_path_ops'})


def downgrade() -> None:
    op.drop_index('ix_tasks_task_metadata', table_name='tasks', postgresql_using='gin', postgresql_ops={'task_metadata': 'jsonb_path_ops'})
    op.drop_index('ix_tasks_account_id_updated_at', table_name='tasks')
    op.drop_index('ix_tasks_account_id_status_created_at', table_name='tasks')
