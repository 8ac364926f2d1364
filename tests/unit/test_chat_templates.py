"""A base's chat template is a program of whoever published it: it is rendered without reach."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from editloop.errors import EditLoopError
from editloop.models.backbones.chat_opening import chat_opening

BASE = Path(__file__).parents[2] / "editloop/models/edit_score/weights/tiny-score"
CONFIG = SimpleNamespace(vision_start_token_id=0, image_token_id=1, vision_end_token_id=2)


@pytest.mark.parametrize(
    "template",
    [
        "{{{{ cycler.__init__.__globals__.os.mkdir('{0}') }}}}",
        "{{{{ ''.__class__.__mro__[1].__subclasses__() }}}}",
        "{{% for c in ().__class__.__base__.__subclasses__() %}}{{{{ c }}}}{{% endfor %}}",
        "{{{{ messages.append.__self__.__class__ }}}}",
        "{{{{ raise_exception.__globals__ }}}}",
        "{{{{ self._TemplateReference__context.environment }}}}",
        "{{{{ messages.append(1) }}}}",
        "{{% include '{0}' %}}",
        "{{{{ range(100000000) | list }}}}",
        "{{{{ 1 // 0 }}}}",
        "{{{{ 'x' * 10 ** 18 }}}}",
    ],
)
def test_a_template_reaches_nothing(template: str, tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "chat_template.jinja").write_text(template.format(planted))
    tokenizer = AutoTokenizer.from_pretrained(BASE / "tokenizer")
    with pytest.raises(EditLoopError, match=r"chat template (cannot be rendered|writes two pictures)"):
        chat_opening(folder, CONFIG, tokenizer)
    assert not planted.exists()
