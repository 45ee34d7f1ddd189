"""agents: builds without an address, failed health checks, indexes for lists"""

from __future__ import annotations

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = '0005'
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column('agents', 'acp_url', existing_type=sqlmodel.sql.sqltypes.AutoString(), nullable=True)
    # What a downgrade has left of them.
    op.execute("UPDATE agents SET acp_url = NULL WHERE acp_url = '' AND status = 'BuildOnly'")
    op.create_check_constraint('acp_url', 'agents', "acp_url IS NOT NULL OR status IN ('BuildOnly', 'Deleted')")
    op.add_column('agents', sa.Column('health_failures', sa.Integer(), server_default=sa.text('0'), nullable=False))
    op.create_index('ix_agents_account_id_updated_at', 'agents', ['account_id', sa.literal_column('updated_at DESC'), sa.literal_column('id DESC')], unique=False)
    op.create_index('ix_agents_card_metadata', 'agents', [sa.literal_column("(registration_metadata #> '{agent_card,metadata}')").label('card_metadata')], unique=False, postgresql_using='gin', postgresql_ops={'card_metadata': 'jsonb_path_ops'}, postgresql_where=sa.text('deleted_at IS NULL'))


def downgrade() -> None:
    op.drop_index('ix_agents_card_metadata', table_name='agents', postgresql_using='gin', postgresql_where=sa.text('deleted_at IS NULL'))
    op.drop_index('ix_agents_account_id_updated_at', table_name='agents')
    op.drop_column('agents', 'health_failures')
    op.drop_constraint('acp_url', 'agents', type_='check')
    # The schema before knew no agent without an address; an empty one is called as little.
    op.execute("UPDATE agents SET acp_url = '' WHERE acp_url IS NULL")
    op.alter_column('agents', 'acp_url', existing_type=sqlmodel.sql.sqltypes.AutoString(), nullable=False)
