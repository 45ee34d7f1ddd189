"""streams: who watches which task, and triggers that tell them"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0007'
down_revision = "0006"
branch_labels = None
depends_on = None

# Statement-level, so that a page of messages costs one look-up in an index; each task is told once.
TELL = """
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('agentex_streams', w.task_id::text)
    FROM stream_watches w WHERE w.task_id IN (SELECT {column} FROM written)
    GROUP BY w.task_id;
    RETURN NULL;
END $$
"""
TRIGGERS = [
    ('messages', 'insert', 'NEW', 'tell_message_watchers'),
    ('messages', 'update', 'NEW', 'tell_message_watchers'),
    ('tasks', 'update', 'NEW', 'tell_task_watchers'),
    ('tasks', 'delete', 'OLD', 'tell_task_watchers'),
]


def upgrade() -> None:
    op.create_table('stream_watches',
    sa.Column('task_id', sa.Uuid(), nullable=False),
    sa.Column('listener', sa.Integer(), nullable=False),
    sa.PrimaryKeyConstraint('task_id', 'listener', name=op.f('pk_stream_watches')),
    prefixes=['UNLOGGED']
    )
    op.execute(TELL.format(name='tell_message_watchers', column='task_id'))
    op.execute(TELL.format(name='tell_task_watchers', column='id'))
    for table, event, version, function in TRIGGERS:
        op.execute(
            f'CREATE TRIGGER {table}_tell_{event} AFTER {event} ON {table} '
            f'REFERENCING {version} TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION {function}()'
        )


def downgrade() -> None:
    for table, event, _, _ in TRIGGERS:
        op.execute(f'DROP TRIGGER {table}_tell_{event} ON {table}')
    op.execute('DROP FUNCTION tell_message_watchers()')
    op.execute('DROP FUNCTION tell_task_watchers()')
    op.drop_table('stream_watches')
