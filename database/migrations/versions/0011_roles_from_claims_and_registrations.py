"""roles from claims, and what a remote authorizer is to be told"""

from __future__ import annotations

import sqlalchemy as sa
import sqlmodel
from alembic import op
from sqlalchemy.dialects import postgresql

# Whatever makes or removes one of these says so in the same transaction, on connections of processes that have a
# remote authorizer (Database sets agentex.registers): a path that forgot to would leave what nobody can reach,
# or what is still listed elsewhere.
TELLING = "current_setting('agentex.registers', true) = 'on'"
FUNCTION = """
CREATE FUNCTION note_registration() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    what record;
    kind text := TG_ARGV[0];
    selector text;
    agent uuid;
BEGIN
    IF TG_OP = 'DELETE' THEN what := OLD; ELSE what := NEW; END IF;
    selector := what.id;
    IF kind <> 'agent' THEN agent := what.agent_id; END IF;
    IF kind = 'schedule' THEN selector := 'run-schedule::' || agent || '::' || what.id; END IF;
    IF TG_ARGV[1] = 'moved' THEN
        INSERT INTO registrations (account_id, principal, resource_type, selector, parent_agent_id, action,
            created_at, next_attempt_at, attempts)
        VALUES (what.account_id, principal_of_row(kind, to_jsonb(OLD)), kind, selector, agent, 'revoke',
            clock_timestamp(), clock_timestamp(), 0);
    END IF;
    INSERT INTO registrations (account_id, principal, resource_type, selector, parent_agent_id, action,
        created_at, next_attempt_at, attempts)
    VALUES (what.account_id, principal_of_row(kind, to_jsonb(what)), kind, selector, agent,
        CASE TG_ARGV[1] WHEN 'made' THEN 'register' WHEN 'moved' THEN 'grant' ELSE 'deregister' END,
        clock_timestamp(), clock_timestamp(), 0);
    RETURN NULL;
END $$
"""
# An owner is KIND:NAME (agentex/auth/principal.py).
PRINCIPAL_FUNCTION = """
CREATE FUNCTION principal_of_row(kind text, of_row jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE kind
        WHEN 'schedule' THEN of_row->'creator_principal'
        WHEN 'api_key' THEN of_row->'principal'
        ELSE jsonb_build_object(
            'principal_type', split_part(of_row->>'owner', ':', 1),
            'user_id', CASE WHEN of_row->>'owner' LIKE 'user:%' THEN substr(of_row->>'owner', 6) END,
            'service_account_id', CASE WHEN of_row->>'owner' NOT LIKE 'user:%'
                THEN substr(of_row->>'owner', position(':' IN of_row->>'owner') + 1) END,
            'account_id', of_row->>'account_id')
    END
$$
"""
DELETED = 'OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL'
# (table, kind, what happened, on which statements, when)
TRIGGERS = [
    ('agents', 'agent', 'made', 'INSERT', None),
    ('agents', 'agent', 'gone', 'UPDATE OF deleted_at', DELETED),
    ('agents', 'agent', 'moved', 'UPDATE OF owner', 'OLD.owner <> NEW.owner'),
    ('tasks', 'task', 'made', 'INSERT', None),
    ('tasks', 'task', 'gone', 'UPDATE OF status', "OLD.status <> 'DELETED' AND NEW.status = 'DELETED'"),
    ('tasks', 'task', 'forgotten', 'DELETE', "OLD.status <> 'DELETED'"),
    ('tasks', 'task', 'moved', 'UPDATE OF owner', 'OLD.owner <> NEW.owner'),
    ('agent_run_schedules', 'schedule', 'made', 'INSERT', None),
    ('agent_run_schedules', 'schedule', 'gone', 'UPDATE OF deleted_at', DELETED),
    ('agent_run_schedules', 'schedule', 'moved', 'UPDATE OF creator_principal',
     'OLD.creator_principal <> NEW.creator_principal'),
    ('agent_api_keys', 'api_key', 'made', 'INSERT', None),
    ('agent_api_keys', 'api_key', 'forgotten', 'DELETE', None),
]

revision = '0011'
down_revision = '0010'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('members', sa.Column('claims_at', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=True))
    op.create_table('registrations',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('account_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('principal', postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
    sa.Column('resource_type', sa.Enum('agent', 'task', 'schedule', 'run', 'api_key', 'member', 'audit', name='resource_type', native_enum=False, create_constraint=True, length=32), nullable=False),
    sa.Column('selector', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('parent_agent_id', sa.Uuid(), nullable=True),
    sa.Column('action', sa.Enum('register', 'deregister', 'grant', 'revoke', name='action', native_enum=False, create_constraint=True, length=32), nullable=False),
    sa.Column('created_at', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=False),
    sa.Column('next_attempt_at', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=False),
    sa.Column('attempts', sa.Integer(), nullable=False),
    sa.Column('error', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('told_at', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_registrations'))
    )
    op.create_index('ix_registrations_next_attempt_at', 'registrations', ['next_attempt_at'], unique=False, postgresql_where=sa.text('told_at IS NULL'))
    op.create_index('ix_registrations_selector_id', 'registrations', ['selector', 'id'], unique=False)
    op.execute(PRINCIPAL_FUNCTION)
    op.execute(FUNCTION)
    for table, kind, what, statements, when in TRIGGERS:
        condition = TELLING if when is None else f"{TELLING} AND {when}"
        op.execute(
            f"CREATE TRIGGER {kind}_{what}_is_told AFTER {statements} ON {table} FOR EACH ROW "
            f"WHEN ({condition}) EXECUTE FUNCTION note_registration('{kind}', '{what}')"
        )


def downgrade() -> None:
    for table, kind, what, _, _ in TRIGGERS:
        op.execute(f"DROP TRIGGER {kind}_{what}_is_told ON {table}")
    op.execute("DROP FUNCTION note_registration()")
    op.execute("DROP FUNCTION principal_of_row(text, jsonb)")
    op.drop_index('ix_registrations_selector_id', table_name='registrations')
    op.drop_index('ix_registrations_next_attempt_at', table_name='registrations')
    op.drop_table('registrations')
    op.drop_column('members', 'claims_at')
