"""croissant.json: the data set's files, columns, licences and origins as JSON-LD.

Croissant 1.1, http://mlcommons.org/croissant/1.1. What it asks for and no record tells (creator, date
of publication) is left to whoever publishes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monotreme.licenses import PASSED_ON
from monotreme.release.evidence import DataFile, Evidence, on_hub
from monotreme.release.licensing import licensed
from monotreme.storage import sha256

FILE = "croissant.json"
_KINDS = {"string": "sc:Text", "bool": "sc:Boolean"}
_FORMATS = {
    ".parquet": "application/x-parquet",  # what Croissant's readers and the Hub call it
    ".json": "application/json",
    ".jsonl": "application/jsonlines",
    ".md": "text/markdown",
    ".yaml": "application/yaml",
}
# The specification's context (appendix 1) as far as these terms are used here.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "key": "cr:key",
    "recordSet": "cr:recordSet",
    "source": "cr:source",
}


def croissant(evidence: Evidence, folder: Path, files: Mapping[str, DataFile]) -> dict[str, Any]:
    """The description of the set that stands in a folder.

    Args:
        files: by the name of their configuration; the folder's other files are listed too.
    """
    name = evidence.release["dataset"]
    licenses = [one.license for one in licensed(evidence.sources)]
    optional = {
        "url": f"https://huggingface.co/datasets/{name}" if name else None,
        "inLanguage": evidence.release["language"],
        "license": [_license(license_) for license_ in licenses],
        "prov:wasDerivedFrom": [_origin(row) for row in evidence.sources if row["released"]],
    }
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": evidence.title,
        "description": f"{evidence.num_questions} questions with their answers, for instruction tuning",
        **{key: value for key, value in optional.items() if value},
        "prov:wasGeneratedBy": {
            "@type": "prov:Activity",
            "prov:label": "curate, decontaminate",
            "prov:wasAssociatedWith": {
                "@type": "prov:SoftwareAgent",
                "prov:label": f"monotreme {evidence.records['decontaminate']['versions']['monotreme']}",
            },
        },
        "distribution": [
            _file(folder, path) for path in sorted(folder.rglob("*")) if path.is_file()
        ],
        "recordSet": [_record_set(config, file) for config, file in files.items()],
    }


def _license(expression: str) -> str:
    """The address of a licence that has one."""
    by_case = {name.casefold(): name for name in PASSED_ON}
    known = by_case.get(expression.casefold())
    return f"https://spdx.org/licenses/{known}.html" if known else expression


def _origin(row: Mapping[str, Any]) -> dict[str, Any]:
    """A source: its Hub commit, or the digest of the local file that was read."""
    found = on_hub(row["digest"])
    address = "https://huggingface.co/datasets/{}/tree/{}".format(*found) if found else None
    local = f"urn:sha256:{row['digest']}" if row["digest"] else None
    origin = {
        "@id": address or local,
        "@type": "prov:Entity",
        "prov:label": row["source"],
        "sc:license": [_license(name) for name in row["licenses"]],
    }
    return {key: value for key, value in origin.items() if value}


def _file(folder: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": path.name,
        "contentUrl": name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": _FORMATS[path.suffix],
        "sha256": sha256(path),
    }


def _record_set(config: str, file: DataFile) -> dict[str, Any]:
    key = {"key": {"@id": f"{config}/id"}} if "id" in file.columns else {}
    return {
        "@type": "cr:RecordSet",
        "@id": config,
        "name": config,
        **key,
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{config}/{column}",
                "name": column,
                "dataType": _KINDS[kind],
                "source": {"fileObject": {"@id": file.path}, "extract": {"column": column}},
            }
            for column, kind in file.columns.items()
        ],
    }
