"""Version 1: ids, states, sizes, the hour. SQLite files of this version were made before there were migrations."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables as the first program made them."""
    op.create_table("schema_version", sa.Column("version", sa.Integer, primary_key=True, autoincrement=False))
    op.execute("INSERT INTO schema_version (version) VALUES (1)")
    op.create_table(
        "recordings",
        sa.Column("file_id", sa.String(32), primary_key=True),
        sa.Column("recording", sa.String(32), nullable=False, index=True),
        sa.Column("segment", sa.BigInteger, nullable=False),
        sa.Column("call_uid", sa.String(64), nullable=False, index=True),
        sa.Column("tenant_handle", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("records", sa.BigInteger, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("provider", sa.Integer, nullable=False),
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("object_key", sa.String, nullable=True),
        sa.Column("started_hour", sa.String(20), nullable=False, index=True),
    )


def downgrade() -> None:
    """There is nothing before it."""
    raise NotImplementedError("an index is never brought back to an older version; restore a backup")
