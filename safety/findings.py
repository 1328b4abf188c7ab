"""What is wrong with a rule file: where, what was found, what would be right."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from runtime.errors import SurefootError


@dataclass(frozen=True, order=True)
class Finding:
    """One error in a rule file; line and column count from 1."""

    line: int
    column: int
    code: str
    message: str
    remedy: str

    def json(self) -> dict[str, object]:
        """The finding as a script reads it."""
        return asdict(self)


class RuleFileError(SurefootError):
    """A rule file does not load; carries every finding, its text is the first one."""

    def __init__(self, path: str, findings: list[Finding]) -> None:
        """Refuse the file at `path` for these reasons."""
        self.path, self.findings = path, sorted(findings)
        first = self.findings[0]
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        super().__init__(f"{path}:{first.line}:{first.column}: {first.code}: {first.message}; {first.remedy}{more}")


class ExpressionError(Exception):
    """An error inside an expression, at an offset into its text; the rule file adds the line."""

    def __init__(self, at: int, code: str, message: str, remedy: str) -> None:
        """What is wrong at `at`."""
        super().__init__(message)
        self.at, self.code, self.message, self.remedy = at, code, message, remedy
