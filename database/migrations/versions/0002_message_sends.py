"""message/send of clients, while its answer is open and as long as a repeat may ask for it"""

from __future__ import annotations

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('message_sends',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('account_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('task_id', sa.Uuid(), nullable=False),
    sa.Column('claimed_until', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=False),
    sa.Column('awaited', sa.Boolean(), nullable=False),
    sa.Column('message_ids', sa.ARRAY(sa.Uuid()), server_default=sa.text("'{}'"), nullable=False),
    sa.Column('error', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('unsent', sa.Boolean(), nullable=False),
    sa.Column('ended_at', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=True),
    sa.ForeignKeyConstraint(['task_id'], ['tasks.id'], name=op.f('fk_message_sends_task_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_message_sends'))
    )
    op.create_index('ix_message_sends_task_id', 'message_sends', ['task_id'], unique=False)
    op.create_index('ix_message_sends_open', 'message_sends', ['id'], unique=False, postgresql_where=sa.text('ended_at IS NULL'))


def downgrade() -> None:
    op.drop_index('ix_message_sends_open', table_name='message_sends', postgresql_where=sa.text('ended_at IS NULL'))
    op.drop_index('ix_message_sends_task_id', table_name='message_sends')
    op.drop_table('message_sends')
