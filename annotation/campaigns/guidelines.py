"""The annotators' guidelines: Markdown, shown in Label Studio as HTML."""

from pathlib import Path

from markdown_it import MarkdownIt


def default_guidelines() -> str:
    """Return the guidelines, in Markdown, of campaigns without guidelines of their own."""
    return Path(__file__).with_name("guidelines.md").read_text()


def guidelines_html(markdown: str) -> str:
    """Render guidelines as HTML.

    HTML in the text is escaped, so a script in it does not run.

    Args:
        markdown: Guidelines as CommonMark with tables.

    Returns:
        The HTML text.
    """
    text = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    return f'<div class="el-guidelines">{text}</div>'
