"""Which Kubeflow Pipelines server runs the pipelines."""

from editloop.environment import EnvironmentSettings, PublicAddress


class KfpSettings(EnvironmentSettings):
    """The Kubeflow Pipelines server."""

    kfp_endpoint: PublicAddress | None = None
    """Address of a Kubeflow Pipelines server; without it pipelines run on this machine."""
    kfp_experiment: str = "editloop"
    """Experiment of the server that runs are listed under."""
    profile: str | None = None
    """Deployment profile of the server's runs: a shipped one, or the path of a YAML file."""
