"""The share of `Any` is read from mypy's report, and its limits hold for the maths and for all product code."""

from tests.typing_share import MATHS, PACKAGES, Share, faults, read_report, share_of

REPORT = """\
                          Name   Anys    Exprs   Coverage
---------------------------------------------------------
      editloop.statistics.holm      5      100     95.00%
editloop.statistics_of_another     50      100     50.00%
             infra.empty             0        0    100.00%
---------------------------------------------------------
                         Total     55      200     72.50%
"""


def test_rows_are_read_without_the_total() -> None:
    assert read_report(REPORT) == {
        "editloop.statistics.holm": Share(5, 100),
        "editloop.statistics_of_another": Share(50, 100),
        "infra.empty": Share(0, 0),
    }


def test_a_packages_share_is_that_of_its_own_modules() -> None:
    shares = read_report(REPORT)
    assert share_of(shares, MATHS) == (5, 100)
    assert share_of(shares, PACKAGES) == (55, 200)
    assert share_of(shares, ["infra"]).share == 0


def test_each_limit_is_held() -> None:
    fine = {"editloop.statistics.holm": Share(3, 100), "pipelines.cli": Share(0, 1000)}
    assert faults(fine) == []
    (product,) = faults(fine | {"pipelines.cli": Share(100, 1000)})
    assert "of the product code" in product
    assert "pipelines.cli (100)" in product
    (maths,) = faults(fine | {"editloop.statistics.holm": Share(4, 100)})
    assert maths.startswith("4.0% of the expressions of the maths are Any, at most 3.0%")


def test_a_report_without_the_maths_is_no_success() -> None:
    assert "has no row of it" in faults({"pipelines.cli": Share(0, 10)})[0]
