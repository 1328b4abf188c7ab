"""Contact pairs written out: where a robot touches nothing but the world, there is nothing to search for.

MuJoCo looks among all bodies for those that are near each other, in every evaluation of the dynamics, and then drops
pairs that may not touch: with robots that do not touch themselves, all of them. A list of the pairs that may touch
leads to the same contacts in the same order, bit by bit (tests/plants), in 13 % less time (bench/rollout.py).
"""

from __future__ import annotations

from itertools import combinations

import mujoco
import numpy as np


def write_out_pairs(spec: mujoco.MjSpec, model: mujoco.MjModel) -> None:
    """Gives a specification the contact pairs that its masks stand for, and clears the masks.

    Nothing is done where the geoms of a robot may touch each other, or have contact parameters that MuJoCo would not
    simply average, or where the specification has pairs or exclusions of its own.

    Args:
        spec: Not compiled yet; geoms without a name get one.
        model: The same, compiled.
    """
    world = np.asarray(model.body_weldid)[model.geom_bodyid] == 0
    touch = model.geom_contype[:, None] & model.geom_conaffinity
    pairs = [(i, j) for i, j in combinations(range(model.ngeom), 2) if touch[i, j] or touch[j, i]]
    mixed = (model.geom_priority, model.geom_solmix)
    if (
        any(world[i] == world[j] for i, j in pairs)
        or any(len(np.unique(values)) > 1 for values in mixed)
        or (model.geom_solref <= 0).any()
        or model.npair or model.nexclude or model.nflex
    ):  # fmt: skip
        return
    geoms = list(spec.geoms)
    for i, geom in enumerate(geoms):
        geom.name = geom.name or f"unnamed geom {i}"
        geom.contype = geom.conaffinity = 0
    for i, j in pairs:
        slide, spin, roll = np.maximum(model.geom_friction[i], model.geom_friction[j])
        spec.add_pair(
            geomname1=geoms[i].name, geomname2=geoms[j].name, condim=int(max(model.geom_condim[[i, j]])),
            friction=[slide, slide, spin, roll, roll], solref=model.geom_solref[[i, j]].mean(axis=0),
            solimp=model.geom_solimp[[i, j]].mean(axis=0), margin=model.geom_margin[[i, j]].sum(),
            gap=model.geom_gap[[i, j]].sum(),
        )  # fmt: skip
