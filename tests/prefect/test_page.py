"""The page about Prefect lists what the tests run and what the server serves."""

from tools.prefect_page import PAGE, page


def test_the_tables_are_up_to_date() -> None:
    """Write them again with `make prefect-page`."""
    assert PAGE.read_text() == page(PAGE.read_text())
