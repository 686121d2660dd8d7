"""A stranger's task in a matrix: from which file it comes, what of it is wrong, and the digest of its code."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import architectures
from bench.config.schema import Data
from bench.run.plugins import Plugins

if TYPE_CHECKING:
    from collections.abc import Callable

LAWS = ("is deterministic", "prompt is honest", "layout says as much")  # those that take no second
IN_WORDS = "text says as much"  # of prompts as text; whatever they are, text is made without an error
COUNT = 64  # samples


def is_built_in(data: Data) -> bool:
    """Whether data is of no task, or of one that is built in."""
    if data.task is None:
        return True
    from bench.data.tasks import registry

    return data.task in registry.BUILT_IN


class TaskPlugins:
    """The plugins' tasks of a matrix, each looked up once."""

    def __init__(self, plugins: Callable[[], Plugins]) -> None:
        self.plugins = plugins
        self._reasons: dict[str, str] = {}
        self.digest = functools.cache(self._digest)

    def reason(self, data: Data) -> str:
        """Why a plugin's task cannot be run, or empty; what the user mistyped is an error of the data."""
        if is_built_in(data):
            return ""
        key = repr((data.task, data.level, data.knobs, data.words))
        if key not in self._reasons:
            self._reasons[key] = self._wrong(data)
        return self._reasons[key]

    def _wrong(self, data: Data) -> str:
        from bench.data.tasks import laws, registry

        plugins, name = self.plugins(), str(data.task)
        if name not in registry.tasks():
            return f"task {name!r} is missing: {'; '.join(plugins.wrong)}" if plugins.wrong else ""
        try:
            with registry.of_task(name, passing=(registry.TaskError,)):
                task = registry.make(name, data.level, data.knobs)
                found = {law: laws.LAWS[law](task, COUNT) for law in (*LAWS, IN_WORDS)}
        except registry.TaskError:
            return ""  # the preparation of the data says so
        except architectures.PluginError as error:
            return str(error)
        if not data.words:
            del found[IN_WORDS]  # its text is for people alone, who see signs too
        broken = [f"task {name!r} breaks the law {law!r}: {seen}" for law, (holds, seen) in found.items() if not holds]
        return "; ".join(broken)

    def files(self, data: Data) -> list[str]:
        """The plugin file that a task comes from; none of a built-in task or a package's."""
        file = None if is_built_in(data) else self.plugins().tasks.get(str(data.task))
        return [file] if file else []

    def named(self, data: Data) -> str:
        """`NAME:DIGEST` of a plugin's task, empty of a built-in one."""
        return "" if is_built_in(data) else f"{data.task}:{self.digest(str(data.task))}"

    def _digest(self, name: str) -> str:
        from bench.data.tasks import registry

        return registry.digest(name)
