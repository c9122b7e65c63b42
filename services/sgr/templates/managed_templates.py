"""Implements ``Templates`` of the contract: everyone may look, administrators add and remove, and every change is on record before it is made."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from appliance.audit.ports import Auditor
from appliance.contracts.sgr.v1.api import TemplateInfo
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError
from services.sgr.ports import Template
from services.sgr.templates.checking import check_template
from services.sgr.templates.folder_catalogue import FolderCatalogue, Manifest
from services.sgr.templates.limits import DEFAULT_LIMITS, TemplateLimits


class ManagedTemplates:
    """Templates of the box."""

    def __init__(self, catalogue: FolderCatalogue, audit: Auditor, limits: TemplateLimits = DEFAULT_LIMITS) -> None:
        self._catalogue = catalogue
        self._audit = audit
        self._limits = limits
        self._one_check = asyncio.Semaphore(1)  # a check may take half a second of one core and 100 MiB

    async def list(self, principal: Principal) -> Sequence[TemplateInfo]:  # noqa: ARG002 - everyone may
        """See the contract; what was damaged on the disk is left out."""
        return await asyncio.to_thread(self._all)

    async def describe(self, name: str, principal: Principal) -> TemplateInfo:  # noqa: ARG002 - everyone may
        """See the contract."""
        return _info(await asyncio.to_thread(self._catalogue.get, name))

    async def check(
        self, file: Path, name: str, schema: Mapping[str, object] | None, principal: Principal, language: str = "", title: str = ""
    ) -> TemplateInfo:
        """See the contract. Administrators only, as checking costs more than looking."""
        await self._admit(principal, "template.check", name)
        manifest, _ = await self._checked(file, name, schema, language, title)
        return _described(manifest)

    async def add(
        self, file: Path, name: str, schema: Mapping[str, object] | None, principal: Principal, language: str = "", title: str = ""
    ) -> TemplateInfo:
        """See the contract."""
        await self._admit(principal, "template.add", name)
        manifest, content = await self._checked(file, name, schema, language, title)
        await self._record(principal, "template.add", name, manifest.digest)
        await asyncio.to_thread(self._catalogue.put, manifest, content)
        return _described(manifest)

    async def remove(self, name: str, principal: Principal) -> None:
        """See the contract."""
        await self._admit(principal, "template.remove", name)
        template = await asyncio.to_thread(self._catalogue.get, name)
        if not template.builtin:
            await self._record(principal, "template.remove", name, template.digest)
        await asyncio.to_thread(self._catalogue.remove, name)

    async def _checked(self, file: Path, name: str, schema: Mapping[str, object] | None, language: str, title: str) -> tuple[Manifest, bytes]:
        size = (await asyncio.to_thread(file.stat)).st_size
        if size > self._limits.file_bytes:
            raise ApplianceError("too_large", f"the template has {size:,} bytes", hint=f"at most {self._limits.file_bytes:,}")
        async with self._one_check:
            content = await asyncio.to_thread(file.read_bytes)
            return await asyncio.to_thread(check_template, content, name, schema, language, title, self._limits), content

    async def _admit(self, principal: Principal, action: str, name: str) -> None:
        if not principal.is_admin:
            await self._audit.append(actor=principal.subject, action=action, resource=f"template:{name[:63]}", outcome="deny")
            raise ApplianceError("forbidden", "templates are added and removed by administrators", hint="ask one", on_record=True)

    async def _record(self, principal: Principal, action: str, name: str, digest: str) -> None:
        await self._audit.append(actor=principal.subject, action=action, resource=f"template:{name}", outcome="ok", detail={"sha256": digest})

    def _all(self) -> Sequence[TemplateInfo]:
        found = []
        for name in self._catalogue.names():
            try:
                found.append(_info(self._catalogue.get(name)))
            except ApplianceError as error:
                if error.code not in {"not_found", "template_invalid"}:
                    raise
        return found


def _info(one: Template) -> TemplateInfo:
    return TemplateInfo(one.name, one.titles, one.output, one.languages, one.schemas, one.builtin, one.digest)


def _described(one: Manifest) -> TemplateInfo:
    return TemplateInfo(one.name, one.titles, one.output, tuple(one.schemas), one.schemas, builtin=False, digest=one.digest)
