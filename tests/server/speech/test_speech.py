"""Files that are made whole: how long one may be, and all of them together."""

from __future__ import annotations

import pytest

from server.errors import BusyError, InvalidRequestError
from server.speech.rendering import WholeFiles


def test_a_file_may_be_as_long_as_all_of_them() -> None:
    files = WholeFiles(100)
    with files.one() as grow:
        grow(60)
        grow(40)
        with pytest.raises(InvalidRequestError, match="stream"):
            grow(1)


def test_files_share_their_room_and_give_it_back() -> None:
    files = WholeFiles(100)
    with files.one() as first:
        first(60)
        with files.one() as second:
            second(40)
            with pytest.raises(BusyError, match="stream"):
                second(1)
        with pytest.raises(ZeroDivisionError), files.one() as third:
            third(40)
            raise ZeroDivisionError
        first(40)
