"""roles from claims, and what a remote authorizer is to be told"""

from __future__ import annotations

import sqlalchemy as sa
import sqlmodel
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0011'
down_revision = '0009'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('members', sa.Column('claims_at', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=True))
    op.create_table('registrations',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('account_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('principal', postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
    sa.Column('resource_type', sa.Enum('agent', 'task', 'schedule', 'run', 'api_key', name='resource_type', native_enum=False, create_constraint=True, length=32), nullable=False),
    sa.Column('selector', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('parent_agent_id', sa.Uuid(), nullable=True),
    sa.Column('gone', sa.Boolean(), nullable=False),
    sa.Column('created_at', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=False),
    sa.Column('next_attempt_at', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=False),
    sa.Column('attempts', sa.Integer(), nullable=False),
    sa.Column('error', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_registrations'))
    )
    op.create_index('ix_registrations_next_attempt_at', 'registrations', ['next_attempt_at'], unique=False)
    op.create_index('ix_registrations_selector_id', 'registrations', ['selector', 'id'], unique=False)


def downgrade() -> None:
    op.drop_index('ix_registrations_selector_id', table_name='registrations')
    op.drop_index('ix_registrations_next_attempt_at', table_name='registrations')
    op.drop_table('registrations')
    op.drop_column('members', 'claims_at')
