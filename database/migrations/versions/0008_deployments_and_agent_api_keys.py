"""deployments and agent api keys"""

from __future__ import annotations

import sqlalchemy as sa
import sqlmodel
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0008'
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('agent_api_keys',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('account_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('agent_id', sa.Uuid(), nullable=False),
    sa.Column('owner', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('principal', postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
    sa.Column('name', sqlmodel.sql.sqltypes.AutoString(length=255), nullable=False),
    sa.Column('api_key_type', sa.Enum('internal', 'external', 'github', 'slack', name='api_key_type', native_enum=False, create_constraint=True, length=32), nullable=False),
    sa.Column('key_prefix', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('key_hash', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('sealed_secret', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('created_at', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=False),
    sa.CheckConstraint("(key_hash IS NULL) = (api_key_type IN ('github', 'slack')) AND (sealed_secret IS NULL) = (api_key_type NOT IN ('github', 'slack'))", name=op.f('ck_agent_api_keys_kept_by_type')),
    sa.ForeignKeyConstraint(['agent_id'], ['agents.id'], name=op.f('fk_agent_api_keys_agent_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_agent_api_keys')),
    sa.UniqueConstraint('agent_id', 'api_key_type', 'name', name='uq_agent_api_keys_agent_id_api_key_type_name')
    )
    op.create_index('ix_agent_api_keys_agent_id_created_at', 'agent_api_keys', ['agent_id', sa.literal_column('created_at DESC'), sa.literal_column('id DESC')], unique=False)
    op.create_index('ix_agent_api_keys_key_hash', 'agent_api_keys', ['key_hash'], unique=False, postgresql_where=sa.text('key_hash IS NOT NULL'))
    op.create_table('deployment_history',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('account_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('agent_id', sa.Uuid(), nullable=False),
    sa.Column('commit_hash', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('branch_name', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('author_name', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('author_email', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('build_timestamp', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=False),
    sa.Column('deployment_timestamp', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=False),
    sa.ForeignKeyConstraint(['agent_id'], ['agents.id'], name=op.f('fk_deployment_history_agent_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_deployment_history'))
    )
    op.create_index('ix_deployment_history_agent_id_build_timestamp', 'deployment_history', ['agent_id', sa.literal_column('build_timestamp DESC'), sa.literal_column('id DESC')], unique=False)
    op.create_index('ix_deployment_history_agent_id_deployment_timestamp', 'deployment_history', ['agent_id', sa.literal_column('deployment_timestamp DESC'), sa.literal_column('id DESC')], unique=False)
    op.create_table('deployments',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('account_id', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('agent_id', sa.Uuid(), nullable=False),
    sa.Column('owner', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('docker_image', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.Column('status', sa.Enum('Pending', 'Ready', 'Failed', name='status', native_enum=False, create_constraint=True, length=32), nullable=False),
    sa.Column('acp_url', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('acp_type', sa.Enum('sync', 'async', 'agentic', name='acp_type', native_enum=False, create_constraint=True, length=32), nullable=True),
    sa.Column('registration_metadata', postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
    sa.Column('sgp_deploy_id', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('helm_release_name', sqlmodel.sql.sqltypes.AutoString(), nullable=True),
    sa.Column('created_at', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=False),
    sa.Column('promoted_at', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=True),
    sa.Column('expires_at', sqlmodel.sql.sqltypes.UTCDateTime(), nullable=True),
    sa.ForeignKeyConstraint(['agent_id'], ['agents.id'], name=op.f('fk_deployments_agent_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_deployments'))
    )
    op.create_index('ix_deployments_agent_id_created_at', 'deployments', ['agent_id', sa.literal_column('created_at DESC'), sa.literal_column('id DESC')], unique=False)
    op.create_index('ix_deployments_agent_id_promoted_at', 'deployments', ['agent_id', sa.literal_column('promoted_at DESC NULLS LAST'), sa.literal_column('id DESC')], unique=False)
    op.create_index('ix_agents_name', 'agents', ['name'], unique=False, postgresql_where=sa.text('deleted_at IS NULL'))


def downgrade() -> None:
    op.drop_index('ix_agents_name', table_name='agents', postgresql_where=sa.text('deleted_at IS NULL'))
    op.drop_index('ix_deployments_agent_id_promoted_at', table_name='deployments')
    op.drop_index('ix_deployments_agent_id_created_at', table_name='deployments')
    op.drop_table('deployments')
    op.drop_index('ix_deployment_history_agent_id_deployment_timestamp', table_name='deployment_history')
    op.drop_index('ix_deployment_history_agent_id_build_timestamp', table_name='deployment_history')
    op.drop_table('deployment_history')
    op.drop_index('ix_agent_api_keys_key_hash', table_name='agent_api_keys', postgresql_where=sa.text('key_hash IS NOT NULL'))
    op.drop_index('ix_agent_api_keys_agent_id_created_at', table_name='agent_api_keys')
    op.drop_table('agent_api_keys')
