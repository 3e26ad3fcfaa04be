from glob import glob

from setuptools import find_packages, setup

NAME = "wm_ros"

#: what runs beside rclpy on the robot: no torch, no server
ROBOT = [
    "numpy>=1.26",
    "pydantic>=2.7",
    "onnxruntime>=1.17",
    "mcap>=1.5",  # the first whose writer can end a block when told to
    "zstandard>=0.22",
    "pillow>=10",  # opens compressed images
    "pyyaml>=6",  # reads the robot file; ROS brings it along
    "urllib3>=2.3",  # speaks HTTP to the trainer: certificates, proxies, pools
    "PyNaCl>=1.5",  # verifies who signed a policy
]

#: the trainer: learns, exports, serves.  `make` installs torch by its own variable, beforehand
TRAIN = [
    *ROBOT,
    "torch>=2.11",  # before, autocast cuts off weights that were first read without gradient
    "onnx>=1.19",
    "onnxscript>=0.6.2",
    "tensorboard>=2.18",
    "tyro>=1.0",
    "rich>=13",
    "matplotlib>=3.8",
    "starlette>=1.0",
    "uvicorn>=0.34",
    "httptools>=0.6.3",  # uvicorn's fast parser of HTTP
    "prometheus_client>=0.20",  # what the service does, in numbers
    "uvloop>=0.21",  # its fast event loop and TLS
    "cmaes>=0.11",
    "gymnasium>=1.1",  # the interface of environments; the tasks themselves come with sim
]

#: plays tasks for a trainer elsewhere (`wm sim-actor`): no torch; the tasks come with sim
ACTOR = [*ROBOT, "tyro>=1.0", "rich>=13", "gymnasium>=1.1"]

#: many such actors on a Ray cluster: `wm sim-actor --engine ray`
RAY = ["ray>=2.40"]

#: pixel tasks
SIM = [
    "mujoco>=3.17,<4",
    "dm_control>=1.0.50",
    "gymnasium[classic-control]>=1.1",  # which draws CartPole and its like
    "PyOpenGL>=3.1.7",
    "imageio>=2.14.1",  # Gymnasium's own MuJoCo tasks, such as Ant-v5, ask for it
]

#: recordings of other systems, in and out: `wm data`
DATA = [
    "rosbags>=0.10.9",  # reads and writes rosbag2 and MCAP of any distribution, without ROS
    "pyarrow>=18",  # the tables of LeRobot sets
    "av>=13",  # ... and their videos
    "h5py>=3.11",  # robomimic's and Minari's episodes
]

#: experience in an object store instead of on the trainer's disk
OBJECTS = ["obstore>=0.9"]  # S3, and any store with its API; one wheel without dependencies

#: where a run's numbers go besides TensorBoard: `wm train --loggers`
LOGGERS = {
    "wandb": ["wandb>=0.19"],
    "mlflow": ["mlflow-skinny>=3.0"],  # the client alone
    "trackio": ["trackio>=0.10"],
}

#: Atari games, which come along
ATARI = ["ale-py>=0.11"]

#: real ROS 2 from wheels, for machines without a ROS installation; x86_64 only
ROS = [
    f"{requirement}; platform_machine == 'x86_64' and sys_platform == 'linux'"
    for requirement in (
        "ros-jazzy-rclpy[fastrtps]==7.1.6",
        "ros-jazzy-sensor-msgs==5.3.6",
        "ros-jazzy-std-msgs==5.3.6",
        "ros-jazzy-geometry-msgs==5.3.6",
        "ros-jazzy-nav-msgs==5.3.6",
        "ros-jazzy-trajectory-msgs==5.3.6",
        "ros-jazzy-diagnostic-msgs==5.3.6",
        "ros-jazzy-std-srvs==5.3.6",
        "ros-jazzy-lifecycle-msgs==2.0.3",
    )
]

DEV = [
    "pytest>=7.4",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "httpx>=0.27",
    "trustme>=1.2",  # certificates of tests over TLS
    "moto[s3]>=5.1",  # a service with the S3 API, run as a process of its own ...
    "flask>=3.0",  # ... on this
    "flask-cors>=5.0",
    "leapp==0.7.2",  # its own reader runs the bundles that we write
    "minari>=0.5.4; python_version >= '3.11'",  # writes the sets that we read
    "nbclient>=0.10",  # runs the notebooks of examples/
    "nbformat>=5.10",
    "ipykernel>=6.29",
    "ruff>=0.9",
    "mypy>=1.13",
    "import-linter>=2.3",
    "setuptools>=64",
    "build>=1.2",
    "mkdocs-material>=9.5",  # the documentation site
    "mkdocstrings[python]>=0.26",
    "colcon-core",
    "colcon-ros",
    "colcon-common-extensions",
]

setup(
    name=NAME,
    version="0.1.0",
    description="World models for robots: learn from a robot's camera, act on the robot",
    license="Apache-2.0",
    maintainer="wm_ros maintainers",
    maintainer_email="maintainers@example.org",
    python_requires=">=3.10",
    packages=find_packages(include=["wm_ros*", "wm_core*", "sim*"]),
    include_package_data=False,
    package_data={"": ["py.typed", "*.xml", "static/*.js", "static/*.css"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"{NAME}/resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", sorted(glob("launch/*_launch.*"))),
        (f"share/{NAME}/robots", sorted(glob("examples/robots/*.yaml"))),
        (
            f"share/{NAME}/config",
            sorted(glob("launch/*.yaml") + glob("launch/*.xml") + glob("launch/*.json")),
        ),
    ],
    install_requires=["numpy>=1.26", "pydantic>=2.7"],
    extras_require={
        "robot": ROBOT,
        "train": TRAIN,
        "data": DATA,
        "objects": OBJECTS,
        "actor": ACTOR,
        "ray": RAY,
        "sim": SIM,
        "atari": ATARI,
        **LOGGERS,
        "ros": ROS,
        "dev": DEV,
    },
    entry_points={
        "console_scripts": [
            "wm = wm_core.cli.main:main",
            "policy_node = wm_ros.start:policy_node",
            "sim_node = wm_ros.start:sim_node",
            "doctor = wm_ros.start:doctor",
        ]
    },
    # In place of ROS's stock setup.cfg, which breaks editable installs: executables go where
    # `ros2 run` and launch look for them, and start with the Python of the active environment.
    options={
        "develop": {"script_dir": f"$base/lib/{NAME}"},
        "install": {"install_scripts": f"$base/lib/{NAME}"},
        "build_scripts": {"executable": "/usr/bin/env python3"},
    },
    zip_safe=False,
)
