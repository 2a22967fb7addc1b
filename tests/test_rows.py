"""Which rows of a parametrised test are quick."""

import pytest

from . import rows

pytest_plugins = ["pytester"]


def test_some_rows_stay_quick_the_same_ones_each_time_and_none_is_lost(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.quick_rows(3)
        @pytest.mark.parametrize("b", range(4))
        @pytest.mark.parametrize("a", ["x", "y"])
        def test_product(a, b): ...

        @pytest.mark.quick_rows(3)
        @pytest.mark.parametrize("a", range(2))
        def test_fewer(a): ...
        """
    )
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def ran(marks: str) -> list[str]:
        done = pytester.inline_run("-m", marks, plugins=[rows])
        return sorted(report.nodeid.split("::")[1] for report in done.listoutcomes()[0])

    quick = ran("not soak")
    assert len([name for name in quick if "product" in name]) == 3
    assert len([name for name in quick if "fewer" in name]) == 2
    assert ran("not soak") == quick
    assert len(quick) + len(ran("soak")) == 10
    assert not set(quick) & set(ran("soak"))
