"""The benchmark's page in the KFP UI."""

from typing import Any

from jinja2 import Template

PAGE = Template(
    """<!doctype html><meta charset="utf-8"><title>Reward benchmark</title>
<style>body{font:16px/1.5 system-ui;margin:2rem;max-width:46rem}table{border-collapse:collapse}td,th{padding:.3rem
.8rem;
text-align:left;border-bottom:1px solid #ccc}.promote{color:#17692f}.hold{color:#8a6100}.reject{color:#a31515}</style>
<h1>Reward benchmark: <span class="{{ gate.verdict }}">{{ gate.verdict }}</span></h1>
{% for reason in gate.reasons %}<p>{{ reason }}</p>{% endfor %}
<table><tr><th>figure</th><th>value</th></tr>
{% for name, value in report.items() %}<tr><td>{{ name.replace("_", " ") }}</td><td>{{ value }}</td></tr>
{% endfor %}</table>""",
    autoescape=True,
)


def benchmark_page(report: dict[str, Any], gate: dict[str, Any]) -> str:
    """HTML of the figures and the verdict."""

    def shown(value: Any) -> Any:
        if value is None:
            return "not measured"
        if isinstance(value, list):
            return " to ".join(f"{part:.3f}" for part in value)
        return f"{value:.3f}" if isinstance(value, float) else value

    return PAGE.render(report={name: shown(value) for name, value in report.items()}, gate=gate)
