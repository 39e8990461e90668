"""Engines on several machines or drives, in a Ray cluster (extra `ray`): docs/cluster.md.

`application` is a Ray Serve application with OpenAI's interface, `answers` a stage of Ray Data.

    from ray import serve
    from flashinfer_ssd.ray import Drive, application

    drives = [Drive("/mnt/a/model.bin", "/mnt/a/kv"), Drive("/mnt/b/model.bin", "/mnt/b/kv")]
    serve.run(application(drives, replicas=2, engine={"ram": "8GiB"}))
"""
from ._drives import Drive
from ._ray_data import answers
from ._ray_serve import application

__all__ = ["Drive", "answers", "application"]
