"""`/admin/v1/backups`: snapshots taken and listed, restores started and watched."""

import asyncio
from typing import Any, Final

from tokmesh.api.admin.audited import Audited
from tokmesh.api.answer import FileAnswer, Reply, Request
from tokmesh.api.body import BodySpec
from tokmesh.api.query import NO_QUERY
from tokmesh.api.route import Route
from tokmesh.api.spool import SpoolSpec
from tokmesh.backups import Backups
from tokmesh.errors import ApiError
from tokmesh.snapshots.restoring import Job, Restores, keep_upload
from tokmesh.snapshots.taking import Listed, Snapshots

CONTENT_TYPE: Final = "application/octet-stream"
_TAKE: Final = BodySpec()
_RESTORE: Final = BodySpec(required={"snapshot_id": str})


class BackupHandlers:
    """The routes of backups. in_cluster: nothing can be restored: what sessions there are is said by the stream."""

    def __init__(self, snapshots: Snapshots, restores: Restores, *, in_cluster: bool) -> None:
        self._snapshots = snapshots
        self._restores = restores
        self._in_cluster = in_cluster

    async def take(self, request: Request) -> Reply:
        """POST /admin/v1/backups/snapshots: a snapshot of now, there when the answer is."""
        NO_QUERY.parse(request)
        _TAKE.parse(request.body)
        return _shown(await self._snapshots.take())

    async def list(self, request: Request) -> Reply:
        """GET /admin/v1/backups/snapshots: newest first."""
        NO_QUERY.parse(request)
        items = [_shown(listed) for listed in self._snapshots.listed()]
        return {"items": items, "total_items": len(items), "next_cursor": None}

    async def file(self, request: Request) -> Reply:
        """GET /admin/v1/backups/snapshots/{snapshot_id}/file: its bytes."""
        NO_QUERY.parse(request)
        listed = self._named(request.params[0])
        name = ("Content-Disposition", f'attachment; filename="{listed.file.path.name}"')
        try:
            return await FileAnswer.open(listed.file.path, CONTENT_TYPE, (name,))
        except OSError as error:
            raise ApiError("TM-ADMIN-4041") from error  # retention may have removed it meanwhile

    async def upload(self, request: Request) -> Reply:
        """POST /admin/v1/backups/uploads: the body is a backup file, which is restored."""
        NO_QUERY.parse(request)
        self._require_restorable()
        if request.body_file is None:
            raise ApiError("TM-ADMIN-4221", {"reason": "there is no body"})
        path = await asyncio.get_running_loop().run_in_executor(None, keep_upload, request.body_file)
        try:
            return _described(await self._restores.begin(path, "an uploaded file", remove=True))
        except BaseException:  # whatever kept it: nobody else would remove the file
            await asyncio.get_running_loop().run_in_executor(None, path.unlink)
            raise

    async def restore(self, request: Request) -> Reply:
        """POST /admin/v1/backups/restores: begins to replace everything with what a snapshot holds."""
        NO_QUERY.parse(request)
        snapshot_id = _RESTORE.parse(request.body)["snapshot_id"]
        self._require_restorable()
        listed = self._named(snapshot_id)
        return _described(await self._restores.begin(listed.file.path, listed.file.id))

    async def restores(self, request: Request) -> Reply:
        """GET /admin/v1/backups/restores: newest first, as far as this process remembers."""
        NO_QUERY.parse(request)
        items = [_described(job) for job in self._restores.jobs()]
        return {"items": items, "total_items": len(items), "next_cursor": None}

    async def job(self, request: Request) -> Reply:
        """GET /admin/v1/backups/restores/{job_id}."""
        NO_QUERY.parse(request)
        job = self._restores.job(request.params[0])
        if job is None:
            raise ApiError("TM-ADMIN-4041")
        return _described(job)

    def _require_restorable(self) -> None:
        if self._in_cluster:
            raise ApiError("TM-ADMIN-4091", {"reason": "cluster"})

    def _named(self, snapshot_id: str) -> Listed:
        for listed in self._snapshots.listed():
            if listed.file.id == snapshot_id:
                return listed
        raise ApiError("TM-ADMIN-4041")


def _shown(listed: Listed) -> dict[str, Any]:
    header = listed.header
    return {
        "id": listed.file.id,
        "taken_at": header.time_ms,
        "sequence": header.sequence,
        "size_bytes": listed.size_bytes,
        "sessions": header.sessions,
        "encrypted": header.sealed,
        "restored": header.restored,
    }


def _described(job: Job) -> dict[str, Any]:
    progress = job.progress
    return {
        "job_id": job.id,
        "source": job.source,
        "state": job.state,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "error": job.error,
        "entries": progress.records,
        "bytes_read": progress.bytes_read,
        "bytes_total": progress.bytes_total,
    }


def backup_routes(backups: Backups, audited: Audited) -> tuple[Route, ...]:
    """What is here, as rows of the table of routes."""
    handlers = BackupHandlers(backups.snapshots, backups.restores, in_cluster=backups.in_cluster)
    return (
        Route("GET", "/admin/v1/backups/snapshots", "admin", handlers.list),
        Route("POST", "/admin/v1/backups/snapshots", "admin", audited("snapshot.taken", handlers.take, target="id")),
        Route("GET", "/admin/v1/backups/snapshots/{snapshot_id}/file", "admin", audited("snapshot.fetched", handlers.file)),
        Route("POST", "/admin/v1/backups/uploads", "admin",
              audited("restore.begun", handlers.upload, target="job_id", facts=lambda _, data: {"source": data["source"]}),
              spool=SpoolSpec(backups.directory, backups.upload_bytes_max)),
        Route("GET", "/admin/v1/backups/restores", "admin", handlers.restores),
        Route("POST", "/admin/v1/backups/restores", "admin",
              audited("restore.begun", handlers.restore, target="job_id", facts=lambda _, data: {"source": data["source"]})),
        Route("GET", "/admin/v1/backups/restores/{job_id}", "admin", handlers.job),
    )  # fmt: skip
