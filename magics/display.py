"""Results of verbs as a notebook shows them. All text is escaped: names come from anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from nbhull.runtime.verbs.results import Fields, Result, Table
from nbhull.runtime.verbs.snapshots import Difference


class Shown:
    """A verb's result: plain text in a terminal, HTML in a notebook, and data for programs."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self.data = result.data()

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.data)

    def __getitem__(self, key: Any) -> Any:
        """A row by its number, a field by its name."""
        return self.data[key]

    def __repr__(self) -> str:
        return "\n".join([self.result.text(), *self.result.notices])

    def _repr_html_(self) -> str | None:
        """Called by IPython; None leaves it to the plain text."""
        if isinstance(self.result, Difference):
            lines = "".join(f"<pre>{escape(text)}</pre>" for text in self.result.texts)
            return (table_html(self.result) if self.result.rows else "<p>nothing differs</p>") + lines
        if isinstance(self.result, Table):
            notices = "".join(f"<p>{escape(notice)}</p>" for notice in self.result.notices)
            return table_html(self.result) + notices
        if isinstance(self.result, Fields):
            return fields_html(self.result)
        return None


class Written(str):
    """A text that is displayed as it is, without quotation marks."""

    def __repr__(self) -> str:
        return str(self)


def table_html(table: Table) -> str:
    """Rows under headings."""
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def fields_html(fields: Fields) -> str:
    """Named values, one a row."""
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in fields.fields
    )
    return f"<table><tbody>{rows}</tbody></table>"
