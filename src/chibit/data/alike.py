"""Whether data sets fit beside each other: as large, and a column of one name at the same place in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chibit.core.errors import InputError
from chibit.core.formatting import listed
from chibit.data.dataset import TrajectoryDataset
from chibit.data.readers.columns import NAMES

Names = Mapping[str, Sequence[str]]
"""Names in the source of each number of ``observations`` and of ``actions``, as far as it has any."""


def names_of(dataset: TrajectoryDataset) -> Names:
    """What the source of a data set calls its columns."""
    found: Names = dataset.provenance.get(NAMES, {})
    return found


def require_alike(dataset: TrajectoryDataset, other: TrajectoryDataset, where: str) -> None:
    """Refuse data that do not fit beside others.

    Args:
        dataset: the data.
        other: what they are to fit.
        where: what names them, for the message.

    Raises:
        InputError: for other sizes, or columns in another order.
    """
    dataset.spec.require_sizes_of(other.spec, where)
    require_order(dataset, names_of(other), other.spec.name, where)


def require_order(dataset: TrajectoryDataset, names: Names, other: str, where: str) -> None:
    """Refuse data of which a column stands elsewhere than that of the same name in others.

    Columns without a name, or with a name that the others do not have, are taken as they stand.

    Raises:
        InputError: with the order of both, and how to give it.
    """
    for what, mine in names_of(dataset).items():
        theirs = list(names.get(what, ()))
        if any(name in theirs and theirs[place : place + 1] != [name] for place, name in enumerate(mine)):
            raise InputError(
                f"{where}: the {what} of {dataset.spec.name} are {listed(mine)}, those of {other} "
                f"{listed(theirs)}; give both in one order (--columns {what}={listed(theirs, separator=',')})"
            )
