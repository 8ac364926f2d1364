"""Projects that a real Label Studio exports now come in as those of tests/parity/label-studio did."""

from pathlib import Path

from annotation.campaigns.accounts import member_ids
from annotation.formats.label_studio_import import import_label_studio
from infra.services import Services
from infra.settings import service_settings
from tests.label_studio_projects import ANNA, BEN, RATINGS, exports, imported_ratings, write_mapping, write_pictures


def test_every_template_comes_in_from_every_format(service_environment: Services, tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures")
    settings, imported = service_settings(), []
    for name, ending, content in exports(settings):
        ids = member_ids(settings)
        mapping = write_mapping(tmp_path / "mapping.yaml", name, annotators={ids[ANNA]: ANNA, ids[BEN]: BEN})
        (tmp_path / f"{name}.{ending}").write_bytes(content)
        import_label_studio(
            tmp_path / f"{name}.{ending}", mapping, tmp_path / "c", tmp_path / "j", images=tmp_path / "pictures"
        )
        assert imported_ratings(tmp_path / "c", tmp_path / "j", tmp_path / "pictures") == RATINGS[name], (name, ending)
        imported.append((name, ending))
    assert len(imported) == 3 * len(RATINGS)
