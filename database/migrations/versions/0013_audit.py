"""audit: an append-only table"""

from __future__ import annotations

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = '0013'
down_revision = '0012'
branch_labels = None
depends_on = None

RESOURCE_TYPES = ('agent', 'agent_api_key', 'api_key', 'checkpoint', 'deployment', 'event', 'grant', 'member', 'message', 'run', 'schedule', 'span', 'state', 'task', 'tracker', 'other')
NEWEST_FIRST = (sa.literal_column('at DESC'), sa.literal_column('id DESC'))
# What retention may delete is older than the instant that its own transaction names; all else is refused.
APPEND_ONLY = """
CREATE FUNCTION audit_entries_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.at < nullif(current_setting('agentex.audit_forgets_before', true), '')::timestamptz THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'audit_entries is append-only: % is refused', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$
"""


def upgrade() -> None:
    op.create_table('audit_entries',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('account_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('at', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=False),
    sa.Column('principal', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('operation', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('rpc_method', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('resource_type', sa.Enum(*RESOURCE_TYPES, name='resource_type', native_enum=False, create_constraint=True, length=32), nullable=False),
    sa.Column('resource_id', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('agent_id', sa.Uuid(), nullable=True),
    sa.Column('outcome', sa.Enum('done', 'denied', 'refused', 'failed', name='outcome', native_enum=False, create_constraint=True, length=32), nullable=False),
    sa.Column('status', sa.Integer(), nullable=True),
    sa.Column('request_id', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('address', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('user_agent', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_audit_entries'))
    )
    op.create_index('ix_audit_entries_at', 'audit_entries', ['account_id', *NEWEST_FIRST], unique=False)
    for column in ('principal', 'operation', 'resource_type', 'resource_id'):
        op.create_index(f'ix_audit_entries_{column}', 'audit_entries', ['account_id', column, *NEWEST_FIRST], unique=False)
    op.create_index('ix_audit_entries_not_done', 'audit_entries', ['account_id', 'outcome', *NEWEST_FIRST], unique=False, postgresql_where=sa.text("outcome <> 'done'"))
    op.execute(APPEND_ONLY)
    op.execute(
        'CREATE TRIGGER audit_entries_keep_rows BEFORE UPDATE OR DELETE ON audit_entries '
        'FOR EACH ROW EXECUTE FUNCTION audit_entries_append_only()'
    )
    op.execute(
        'CREATE TRIGGER audit_entries_keep_all BEFORE TRUNCATE ON audit_entries '
        'FOR EACH STATEMENT EXECUTE FUNCTION audit_entries_append_only()'
    )
    _allow_grants_of(('agent', 'task', 'schedule', 'run', 'api_key', 'member', 'audit'))


def downgrade() -> None:
    _allow_grants_of(('agent', 'task', 'schedule', 'run', 'api_key', 'member'))
    op.drop_table('audit_entries')
    op.execute('DROP FUNCTION audit_entries_append_only()')


def _allow_grants_of(types: tuple[str, ...]) -> None:
    op.drop_constraint(op.f('ck_grants_resource_type'), 'grants', type_='check')
    op.create_check_constraint(op.f('ck_grants_resource_type'), 'grants', sa.column('resource_type').in_(types))
