"""Films a plant: states on standard input become a video. A process of its own, with a GL of its own.

python -m agent_bridge.records.film '{"robot": …, "timestep": …, "frame_skip": …, "condition": {…}, "path": …}'
"""

import io
import json
import sys
from typing import Any

import imageio
import mujoco
import numpy as np
from numpy.typing import NDArray

from agent_bridge.gate.conditions import Condition, DisturbedPlant
from runtime.records import load_robot

HEIGHT, WIDTH = 240, 320
"""[pixels]"""
DISTANCE = 4.0
"""From the camera to the torso, which it follows [m]."""


def film(plant: DisturbedPlant, states: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Frames (ticks, height, width, 3) of integration states (ticks, size)."""
    camera = mujoco.MjvCamera()
    camera.type, camera.trackbodyid = mujoco.mjtCamera.mjCAMERA_TRACKING, plant.model.body(plant.robot.torso).id
    camera.distance = DISTANCE
    frames = np.zeros((len(states), HEIGHT, WIDTH, 3), np.uint8)
    with mujoco.Renderer(plant.model, HEIGHT, WIDTH) as renderer:
        for frame, state in zip(frames, states, strict=True):
            mujoco.mj_setState(plant.model, plant.data, state, int(mujoco.mjtState.mjSTATE_INTEGRATION))
            mujoco.mj_forward(plant.model, plant.data)
            renderer.update_scene(plant.data, camera)
            renderer.render(out=frame)
    return frames


def main() -> None:
    """Films what the command line and standard input say."""
    told: dict[str, Any] = json.loads(sys.argv[1])
    plant = DisturbedPlant(
        load_robot(told["robot"]), told["timestep"], told["frame_skip"], Condition(**told["condition"])
    )
    frames = film(plant, np.load(io.BytesIO(sys.stdin.buffer.read())))
    imageio.mimsave(told["path"], list(frames), fps=round(1 / plant.period), macro_block_size=1)


if __name__ == "__main__":
    main()
