"""Takes rayservice.yaml apart for deploy/check.sh: `check_rayservice.py FOLDER [CRD]`.

The pods of its templates are written into the folder, for a validator of Kubernetes' own kinds. Where KubeRay's custom
resource definition is given, the rest is compared with its schema, in which fields that it does not know are errors.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jsonschema
import yaml

HERE = Path(__file__).parent


def strict(schema: Any) -> Any:
    """A schema of Kubernetes, in which an object has no other fields than those that it names."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: strict(value) for name, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        closed.pop("type", None)
    elif isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed["additionalProperties"] = False
    return closed


def main() -> None:
    folder, *definition = map(Path, sys.argv[1:])
    service = yaml.safe_load((HERE / "kubernetes" / "rayservice.yaml").read_text("utf-8"))
    cluster = service["spec"]["rayClusterConfig"]
    for number, group in enumerate([cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{number}"}, **group["template"]}
        (folder / f"pod-{number}.yaml").write_text(yaml.safe_dump(pod), "utf-8")
    for path in definition:
        versions = yaml.safe_load(path.read_text("utf-8"))["spec"]["versions"]
        (schema,) = (each["schema"]["openAPIV3Schema"] for each in versions if each["name"] == "v1")
        closed = strict(schema)
        closed["properties"]["metadata"] = {"type": "object"}
        jsonschema.Draft202012Validator(closed).validate(service)


if __name__ == "__main__":
    main()
