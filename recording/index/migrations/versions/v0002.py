"""Version 2: attachments, trunks, retention and hold, parties under an index key, search by blind index."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add columns and the table of index keys. What was there keeps its meaning: audio, nothing promised, no hold."""
    for column in (
        sa.Column("kind", sa.String(16), nullable=False, server_default="audio"),
        sa.Column("parent", sa.String(32), nullable=True),
        sa.Column("trunk_a", sa.String(64), nullable=True),
        sa.Column("trunk_b", sa.String(64), nullable=True),
        sa.Column("retain_until", sa.String(20), nullable=True),
        sa.Column("hold", sa.String(64), nullable=True),
        sa.Column("deleted_hour", sa.String(20), nullable=True),
        sa.Column("sealed", sa.LargeBinary, nullable=True),
        sa.Column("blind_from", sa.LargeBinary, nullable=True),
        sa.Column("blind_to", sa.LargeBinary, nullable=True),
    ):
        op.add_column("recordings", column)
    for name in ("parent", "blind_from", "blind_to"):
        op.create_index(f"ix_recordings_{name}", "recordings", [name])
    op.create_table(
        "index_keys",
        sa.Column("key_id", sa.String(32), primary_key=True),
        sa.Column("tenant_handle", sa.String(32), nullable=False),
        sa.Column("provider", sa.Integer, nullable=False),
        sa.Column("slot_key_id", sa.LargeBinary, nullable=False),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("created_hour", sa.String(20), nullable=False),
    )
    op.execute("UPDATE schema_version SET version = 2")


def downgrade() -> None:
    """Retention, holds and deletions would be lost, and with them the reason why a recording may not go."""
    raise NotImplementedError("an index is never brought back to an older version; restore a backup")
