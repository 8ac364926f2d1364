"""The annotators' guidelines: Markdown, shown in Label Studio as HTML."""

from pathlib import Path

from markdown_it import MarkdownIt


def default_guidelines(references: bool = False) -> str:
    """Return the guidelines, in Markdown, of campaigns without guidelines of their own.

    Args:
        references: Whether the campaign has tasks of several source images.
    """
    names = ["guidelines.md", *(["guidelines_references.md"] if references else [])]
    return "\n".join(Path(__file__).with_name(name).read_text() for name in names)


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
