"""The store itself, for its owner: only over the socket of the data folder."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Response

from dashboards.api import contract
from dashboards.api.context import Context
from dashboards.api.render import json_response
from devices.errors import UnsupportedError
from qala.store.base import Backups

router = APIRouter(tags=["store"], include_in_schema=False)


@router.post("/store/backup")
def back_up(context: Context, body: contract.Backup) -> Response:
    """Copy the store to a file of this machine, while it is in use. Answers when it is done."""
    if not isinstance(context.store, Backups):
        engine = context.store.capabilities.engine
        raise UnsupportedError(f"{engine} makes no backups of itself", hint="copy the store with: qala store copy")
    file = Path(body.file)
    context.store.backup(file)
    return json_response({"file": str(file), "bytes": file.stat().st_size})
