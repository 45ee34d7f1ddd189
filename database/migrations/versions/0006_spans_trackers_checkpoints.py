"""spans, trackers, checkpoints

Tasks that exist get their tracker here; from now on each is made with its task.
"""

from __future__ import annotations

import sqlalchemy as sa
import sqlmodel
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0006'
down_revision = "0005"
branch_labels = None
depends_on = None

TEXT = sqlmodel.sql.sqltypes.AutoString
INSTANT = sqlmodel.sql.sqltypes.UTCDateTime
HAS_TASK = sa.text('task_id IS NOT NULL')


def jsonb() -> postgresql.JSONB:
    return postgresql.JSONB(none_as_null=True, astext_type=sa.Text())


def task_key(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ['task_id'], ['tasks.id'], name=op.f(f'fk_{table}_task_id'), ondelete='CASCADE'
    )


def upgrade() -> None:
    create_spans()
    create_trackers()
    create_checkpoints()


def create_spans() -> None:
    op.create_table('spans',
    sa.Column('account_id', TEXT(), nullable=False),
    sa.Column('id', TEXT(), nullable=False),
    sa.Column('owner', TEXT(), nullable=False),
    sa.Column('task_id', sa.Uuid(), nullable=True),
    sa.Column('trace_id', TEXT(), nullable=False),
    sa.Column('parent_id', TEXT(), nullable=True),
    sa.Column('name', TEXT(), nullable=False),
    sa.Column('start_time', INSTANT(), nullable=False),
    sa.Column('end_time', INSTANT(), nullable=True),
    sa.Column('input', jsonb(), nullable=True),
    sa.Column('output', jsonb(), nullable=True),
    sa.Column('data', jsonb(), nullable=True),
    sa.Column('created_at', INSTANT(), nullable=False),
    sa.Column('updated_at', INSTANT(), nullable=False),
    task_key('spans'),
    sa.PrimaryKeyConstraint('account_id', 'id', name=op.f('pk_spans'))
    )
    newest = [sa.literal_column('start_time DESC'), sa.literal_column('id DESC')]
    op.create_index('ix_spans_account_id_start_time', 'spans', ['account_id', *newest], unique=False)
    op.create_index('ix_spans_account_id_trace_id_start_time', 'spans', ['account_id', 'trace_id', *newest], unique=False)
    op.create_index('ix_spans_task_id_start_time', 'spans', ['task_id', *newest], unique=False, postgresql_where=HAS_TASK)


def create_trackers() -> None:
    op.create_table('trackers',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('account_id', TEXT(), nullable=False),
    sa.Column('agent_id', sa.Uuid(), nullable=False),
    sa.Column('task_id', sa.Uuid(), nullable=False),
    sa.Column('last_processed_event_id', sa.Uuid(), nullable=True),
    sa.Column('status', TEXT(), nullable=True),
    sa.Column('status_reason', TEXT(), nullable=True),
    sa.Column('created_at', INSTANT(), nullable=False),
    sa.Column('updated_at', INSTANT(), nullable=False),
    sa.ForeignKeyConstraint(['agent_id'], ['agents.id'], name=op.f('fk_trackers_agent_id')),
    task_key('trackers'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_trackers')),
    sa.UniqueConstraint('task_id', 'agent_id', name='uq_trackers_task_id_agent_id')
    )
    op.execute(
        """
        INSERT INTO trackers (id, account_id, agent_id, task_id, created_at, updated_at)
        SELECT gen_random_uuid(), account_id, agent_id, id, created_at, created_at FROM tasks
        """
    )
    op.create_index('ix_trackers_account_id_created_at', 'trackers', ['account_id', 'created_at', 'id'], unique=False)
    op.create_index('ix_trackers_agent_id_created_at', 'trackers', ['agent_id', 'created_at', 'id'], unique=False)


def create_checkpoints() -> None:
    op.create_table('checkpoints',
    sa.Column('account_id', TEXT(), nullable=False),
    sa.Column('thread_id', TEXT(), nullable=False),
    sa.Column('checkpoint_ns', TEXT(), nullable=False),
    sa.Column('checkpoint_id', sa.String(collation='C'), nullable=False),
    sa.Column('task_id', sa.Uuid(), nullable=True),
    sa.Column('parent_checkpoint_id', TEXT(), nullable=True),
    sa.Column('checkpoint', jsonb(), nullable=False),
    sa.Column('checkpoint_metadata', jsonb(), nullable=False),
    sa.Column('created_at', INSTANT(), nullable=False),
    task_key('checkpoints'),
    sa.PrimaryKeyConstraint('account_id', 'thread_id', 'checkpoint_ns', 'checkpoint_id', name=op.f('pk_checkpoints'))
    )
    op.create_index('ix_checkpoints_account_id_thread_id_checkpoint_id', 'checkpoints', ['account_id', 'thread_id', 'checkpoint_id'], unique=False)
    op.create_table('checkpoint_blobs',
    sa.Column('account_id', TEXT(), nullable=False),
    sa.Column('thread_id', TEXT(), nullable=False),
    sa.Column('checkpoint_ns', TEXT(), nullable=False),
    sa.Column('channel', TEXT(), nullable=False),
    sa.Column('version', TEXT(), nullable=False),
    sa.Column('task_id', sa.Uuid(), nullable=True),
    sa.Column('type', TEXT(), nullable=False),
    sa.Column('blob', sa.LargeBinary(), nullable=True),
    task_key('checkpoint_blobs'),
    sa.PrimaryKeyConstraint('account_id', 'thread_id', 'checkpoint_ns', 'channel', 'version', name=op.f('pk_checkpoint_blobs'))
    )
    op.create_table('checkpoint_writes',
    sa.Column('account_id', TEXT(), nullable=False),
    sa.Column('thread_id', TEXT(), nullable=False),
    sa.Column('checkpoint_ns', TEXT(), nullable=False),
    sa.Column('checkpoint_id', TEXT(), nullable=False),
    sa.Column('graph_task_id', sa.String(collation='C'), nullable=False),
    sa.Column('idx', sa.Integer(), nullable=False),
    sa.Column('task_id', sa.Uuid(), nullable=True),
    sa.Column('task_path', TEXT(), nullable=False),
    sa.Column('channel', TEXT(), nullable=False),
    sa.Column('type', TEXT(), nullable=True),
    sa.Column('blob', sa.LargeBinary(), nullable=False),
    task_key('checkpoint_writes'),
    sa.PrimaryKeyConstraint('account_id', 'thread_id', 'checkpoint_ns', 'checkpoint_id', 'graph_task_id', 'idx', name=op.f('pk_checkpoint_writes'))
    )
    for table in ('checkpoints', 'checkpoint_blobs', 'checkpoint_writes'):
        op.create_index(f'ix_{table}_task_id', table, ['task_id'], unique=False, postgresql_where=HAS_TASK)


def downgrade() -> None:
    for table in ('checkpoint_writes', 'checkpoint_blobs', 'checkpoints', 'trackers', 'spans'):
        op.drop_table(table)
