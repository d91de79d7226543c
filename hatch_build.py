"""Put the claims and fixtures into the wheel; an editable install reads them in the checkout."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Suite(BuildHookInterface):  # type: ignore[type-arg]
    """Carries ``assertions/`` and ``fixtures/`` as ``mechtests/suite/``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the two folders, and the module that makes them a package."""
        if version != "editable":
            for name in ("assertions", "fixtures"):
                build_data["force_include"][name] = f"mechtests/suite/{name}"
            build_data["force_include"]["fixtures/__init__.py"] = "mechtests/suite/__init__.py"
