"""The annotators' guidelines: Markdown by whoever leads the campaign, shown in Label Studio as HTML."""

from importlib.resources import files

from markdown_it import MarkdownIt


def default_guidelines() -> str:
    """The guidelines of campaigns that bring none of their own, Markdown."""
    return files("annotation.campaigns").joinpath("guidelines.md").read_text()


def guidelines_html(markdown: str) -> str:
    """Guidelines as HTML (CommonMark, and tables). HTML in the text is shown as text: a script in it does not run."""
    text = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    return f'<div class="el-guidelines">{text}</div>'
