"""Every reason that a finding of `validate` and `diff` can have, with what it means.

Reasons are stable: programs filter by them, and forges remember findings by them. In conditions and
events they are PascalCase, as Kubernetes has it; in reports they are kebab-case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_WORD: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

MEANINGS: Final[Mapping[str, str]] = {
    # Files and their names.
    "CaseTwins": "Two names that some file systems cannot tell apart",
    "DotGit": "A name that git keeps for itself",
    "DuplicateName": "One name twice in a folder",
    "FileMode": "An entry that is neither a file nor a folder",
    "FileTooLarge": "A file that is larger than is read",
    "InvisibleCharacter": "A name with a character that nobody sees",
    "LfsPointer": "A Git LFS pointer instead of the file",
    "Lookalike": "A name that looks like another one",
    "NotUtf8": "Content or a name that is not UTF-8",
    "PathTooLong": "A path that is too long",
    "PathTraversal": "A name that leads out of the repository",
    "Separator": "A name with a path separator in it",
    "Submodule": "A submodule, which is not read",
    "SymbolicLink": "A symbolic link, which is never followed",
    "TooDeep": "Folders or values that are nested too deep",
    "Unreadable": "A file that cannot be read",
    # YAML.
    "Alias": "A YAML anchor or alias",
    "DuplicateKey": "A key that stands twice in one mapping",
    "InvalidKey": "A key that is no string",
    "InvalidNumber": "A number that JSON cannot hold",
    "InvalidYaml": "Text that is no YAML",
    "MergeKey": "A YAML merge key",
    "Tag": "A YAML tag",
    "TooLarge": "More values than one file may hold",
    "TooManyDocuments": "More documents than one file may hold",
    "TooManyProblems": "More unreadable documents than are told",
    # Objects.
    "ClusterNotNamed": "A folder for a cluster that scriptops.yaml does not name",
    "DuplicateObject": "One object in two places",
    "DuplicateProperty": "One property twice in a Device or DeviceModel",
    "EdgeValue": "A value that KubeEdge's edge does not take",
    "InvalidCron": "A schedule that cannot be kept",
    "InvalidField": "A field with a value that it cannot have",
    "InvalidName": "A name that cannot be one",
    "KindNotAllowed": "A kind that this repository may not deploy",
    "MissingField": "A field that has to be there",
    "NamespaceNotAllowed": "A namespace that this repository may not write to",
    "NotAnObject": "A document that is no object",
    "NotDecrypted": "Ciphertext where a script gets it as it is",
    "NothingToJudge": "Conditions on changes that run nothing",
    "NothingToRead": "A rule that waits for Devices and names none",
    "ObjectTooLarge": "An object that is larger than a cluster takes",
    "RepositoryNotAllowed": "A ScriptRepository, which only an operator deploys",
    "ReservedKey": "A label or annotation that the controller writes",
    "ServerField": "A field that the cluster writes",
    "StatusInManifest": "A status, which the controller writes",
    "TooMany": "More files or objects than one repository may hold",
    "UnknownAlias": "A condition on a Device that the selector does not name",
    "UnknownField": "A field that nobody knows",
    "UnknownKind": "A kind that is not deployed",
    "UnknownVersion": "A kind in a version that is not served",
    # What objects say of each other.
    "ArtifactNotFound": "A Script whose artifact is not there",
    "ConditionNeverHolds": "A condition that no value of its property meets",
    "DependencyCycle": "Scripts that wait for each other",
    "DependencyOfLaterWave": "A Script that depends on one of a later wave",
    "DeviceModelNotInRepository": "A DeviceModel that the repository does not hold",
    "DeviceNotInRepository": "A Device that the repository does not hold",
    "ScriptNotInRepository": "A Script that another waits for and the repository does not hold",
    "SeveralWriters": "Scripts of one priority that write one property",
    "TriggerCycle": "Scripts that set each other off",
    "VersionImmutable": "A published version with other bytes",
    "VersionTwice": "One version in two files",
    # Devices.
    "InvalidSimulation": "A simulated property that cannot be simulated as it says",
    "PropertyNotInModel": "A property that the DeviceModel does not have",
    "ValueNotInModel": "A desired value that the DeviceModel does not allow",
    # Scripts.
    "DeviceNotGranted": "A device that the manifest does not grant to the script",
    "EnvNotSet": "An environment variable that the manifest does not set",
    "FetchNotAllowed": "A request that the manifest does not allow",
    "NeverCommitted": "A staged value that is never committed",
    "PackageInvalid": "A package that cannot be used",
    "PropertyUnknown": "A property that the device does not have",
    "ScriptInvalid": "A script that cannot be loaded",
    "ScriptMisplaced": "A script where none is looked for",
    "ScriptTooLarge": "A script that is larger than is deployed",
    "WriteRefused": "A write that the DeviceModel refuses",
    # What a change does.
    "ReplayDiffers": "A recorded run that writes something else now",
    "WriterGained": "A device that more Scripts write than before",
    "WriterLost": "A device that fewer Scripts write than before",
}


def kebab(reason: str) -> str:
    """`ArtifactNotFound` as `artifact-not-found`."""
    return _WORD.sub("-", reason).lower()


def pascal(reason: str) -> str:
    """The way back."""
    return "".join(part.capitalize() for part in reason.split("-"))
