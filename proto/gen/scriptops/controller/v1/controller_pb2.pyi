from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ScriptType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCRIPT_TYPE_UNSPECIFIED: _ClassVar[ScriptType]
    SCRIPT_TYPE_JS: _ClassVar[ScriptType]
    SCRIPT_TYPE_WASM: _ClassVar[ScriptType]

class Isolation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ISOLATION_UNSPECIFIED: _ClassVar[Isolation]
    ISOLATION_STRICT: _ClassVar[Isolation]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_SUCCEEDED: _ClassVar[Outcome]
    OUTCOME_FAILED: _ClassVar[Outcome]
    OUTCOME_TIMED_OUT: _ClassVar[Outcome]
    OUTCOME_OUT_OF_MEMORY: _ClassVar[Outcome]
    OUTCOME_OUTPUT_TOO_LARGE: _ClassVar[Outcome]
    OUTCOME_DENIED: _ClassVar[Outcome]
    OUTCOME_CRASHED: _ClassVar[Outcome]
    OUTCOME_LOAD_FAILED: _ClassVar[Outcome]
    OUTCOME_UNAVAILABLE: _ClassVar[Outcome]
    OUTCOME_CRASH_LOOP: _ClassVar[Outcome]
    OUTCOME_WAITING: _ClassVar[Outcome]

class LogLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOG_LEVEL_UNSPECIFIED: _ClassVar[LogLevel]
    LOG_LEVEL_DEBUG: _ClassVar[LogLevel]
    LOG_LEVEL_INFO: _ClassVar[LogLevel]
    LOG_LEVEL_WARN: _ClassVar[LogLevel]
    LOG_LEVEL_ERROR: _ClassVar[LogLevel]
SCRIPT_TYPE_UNSPECIFIED: ScriptType
SCRIPT_TYPE_JS: ScriptType
SCRIPT_TYPE_WASM: ScriptType
ISOLATION_UNSPECIFIED: Isolation
ISOLATION_STRICT: Isolation
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_SUCCEEDED: Outcome
OUTCOME_FAILED: Outcome
OUTCOME_TIMED_OUT: Outcome
OUTCOME_OUT_OF_MEMORY: Outcome
OUTCOME_OUTPUT_TOO_LARGE: Outcome
OUTCOME_DENIED: Outcome
OUTCOME_CRASHED: Outcome
OUTCOME_LOAD_FAILED: Outcome
OUTCOME_UNAVAILABLE: Outcome
OUTCOME_CRASH_LOOP: Outcome
OUTCOME_WAITING: Outcome
LOG_LEVEL_UNSPECIFIED: LogLevel
LOG_LEVEL_DEBUG: LogLevel
LOG_LEVEL_INFO: LogLevel
LOG_LEVEL_WARN: LogLevel
LOG_LEVEL_ERROR: LogLevel

class ClientMessage(_message.Message):
    __slots__ = ("connect", "results", "exit")
    CONNECT_FIELD_NUMBER: _ClassVar[int]
    CONTINUE_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    connect: Connect
    results: UpdateScriptStatuses
    exit: ClientExit
    def __init__(self, connect: _Optional[_Union[Connect, _Mapping]] = ..., results: _Optional[_Union[UpdateScriptStatuses, _Mapping]] = ..., exit: _Optional[_Union[ClientExit, _Mapping]] = ..., **kwargs) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("connected", "runs", "exit")
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    connected: Connected
    runs: RunScripts
    exit: ServerExit
    def __init__(self, connected: _Optional[_Union[Connected, _Mapping]] = ..., runs: _Optional[_Union[RunScripts, _Mapping]] = ..., exit: _Optional[_Union[ServerExit, _Mapping]] = ...) -> None: ...

class Connect(_message.Message):
    __slots__ = ("client_info",)
    CLIENT_INFO_FIELD_NUMBER: _ClassVar[int]
    client_info: ClientInfo
    def __init__(self, client_info: _Optional[_Union[ClientInfo, _Mapping]] = ...) -> None: ...

class ClientInfo(_message.Message):
    __slots__ = ("protocol", "name", "script_types", "engines")
    class EnginesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCRIPT_TYPES_FIELD_NUMBER: _ClassVar[int]
    ENGINES_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    name: str
    script_types: _containers.RepeatedScalarFieldContainer[ScriptType]
    engines: _containers.ScalarMap[str, str]
    def __init__(self, protocol: _Optional[int] = ..., name: _Optional[str] = ..., script_types: _Optional[_Iterable[_Union[ScriptType, str]]] = ..., engines: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Connected(_message.Message):
    __slots__ = ("executor_id",)
    EXECUTOR_ID_FIELD_NUMBER: _ClassVar[int]
    executor_id: str
    def __init__(self, executor_id: _Optional[str] = ...) -> None: ...

class Continue(_message.Message):
    __slots__ = ("credit",)
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    credit: int
    def __init__(self, credit: _Optional[int] = ...) -> None: ...

class RunScripts(_message.Message):
    __slots__ = ("scripts",)
    SCRIPTS_FIELD_NUMBER: _ClassVar[int]
    scripts: _containers.RepeatedCompositeFieldContainer[RunScript]
    def __init__(self, scripts: _Optional[_Iterable[_Union[RunScript, _Mapping]]] = ...) -> None: ...

class RunScript(_message.Message):
    __slots__ = ("script", "runs")
    SCRIPT_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    script: ScriptRef
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    def __init__(self, script: _Optional[_Union[ScriptRef, _Mapping]] = ..., runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ...) -> None: ...

class ScriptRef(_message.Message):
    __slots__ = ("namespace", "name", "digest", "type", "file", "limits", "load", "isolation", "network_allow")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    NETWORK_ALLOW_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    digest: str
    type: ScriptType
    file: str
    limits: Limits
    load: RunKey
    isolation: Isolation
    network_allow: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., digest: _Optional[str] = ..., type: _Optional[_Union[ScriptType, str]] = ..., file: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., load: _Optional[_Union[RunKey, _Mapping]] = ..., isolation: _Optional[_Union[Isolation, str]] = ..., network_allow: _Optional[_Iterable[str]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("wall_time_ms", "output_bytes", "writes", "heap_bytes", "fetches", "state_bytes", "cpu_time_ms", "wait_ms")
    WALL_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    HEAP_BYTES_FIELD_NUMBER: _ClassVar[int]
    FETCHES_FIELD_NUMBER: _ClassVar[int]
    STATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    wall_time_ms: int
    output_bytes: int
    writes: int
    heap_bytes: int
    fetches: int
    state_bytes: int
    cpu_time_ms: int
    wait_ms: int
    def __init__(self, wall_time_ms: _Optional[int] = ..., output_bytes: _Optional[int] = ..., writes: _Optional[int] = ..., heap_bytes: _Optional[int] = ..., fetches: _Optional[int] = ..., state_bytes: _Optional[int] = ..., cpu_time_ms: _Optional[int] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class RunKey(_message.Message):
    __slots__ = ("run_id", "attempt", "epoch")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    attempt: int
    epoch: int
    def __init__(self, run_id: _Optional[str] = ..., attempt: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("key", "activation", "waited_ms")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    WAITED_MS_FIELD_NUMBER: _ClassVar[int]
    key: RunKey
    activation: bytes
    waited_ms: int
    def __init__(self, key: _Optional[_Union[RunKey, _Mapping]] = ..., activation: _Optional[bytes] = ..., waited_ms: _Optional[int] = ...) -> None: ...

class UpdateScriptStatuses(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[UpdateScriptStatus]
    def __init__(self, results: _Optional[_Iterable[_Union[UpdateScriptStatus, _Mapping]]] = ...) -> None: ...

class UpdateScriptStatus(_message.Message):
    __slots__ = ("key", "outcome", "message", "logs", "writes", "duration_us", "load", "state", "replies", "commits", "waited_ms")
    KEY_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    LOGS_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    DURATION_US_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    WAITED_MS_FIELD_NUMBER: _ClassVar[int]
    key: RunKey
    outcome: Outcome
    message: str
    logs: _containers.RepeatedCompositeFieldContainer[LogLine]
    writes: _containers.RepeatedCompositeFieldContainer[UpdateDeviceDesired]
    duration_us: int
    load: bool
    state: bytes
    replies: bytes
    commits: _containers.RepeatedCompositeFieldContainer[Commit]
    waited_ms: int
    def __init__(self, key: _Optional[_Union[RunKey, _Mapping]] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., message: _Optional[str] = ..., logs: _Optional[_Iterable[_Union[LogLine, _Mapping]]] = ..., writes: _Optional[_Iterable[_Union[UpdateDeviceDesired, _Mapping]]] = ..., duration_us: _Optional[int] = ..., load: _Optional[bool] = ..., state: _Optional[bytes] = ..., replies: _Optional[bytes] = ..., commits: _Optional[_Iterable[_Union[Commit, _Mapping]]] = ..., waited_ms: _Optional[int] = ...) -> None: ...

class Commit(_message.Message):
    __slots__ = ("n", "alias", "qos", "writes", "timeout_ms")
    N_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    QOS_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    n: int
    alias: str
    qos: int
    writes: _containers.RepeatedCompositeFieldContainer[UpdateDeviceDesired]
    timeout_ms: int
    def __init__(self, n: _Optional[int] = ..., alias: _Optional[str] = ..., qos: _Optional[int] = ..., writes: _Optional[_Iterable[_Union[UpdateDeviceDesired, _Mapping]]] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class LogLine(_message.Message):
    __slots__ = ("level", "text")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    level: LogLevel
    text: str
    def __init__(self, level: _Optional[_Union[LogLevel, str]] = ..., text: _Optional[str] = ...) -> None: ...

class UpdateDeviceDesired(_message.Message):
    __slots__ = ("alias", "property", "string_value", "number_value", "bool_value", "qos", "force", "done")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    PROPERTY_FIELD_NUMBER: _ClassVar[int]
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_VALUE_FIELD_NUMBER: _ClassVar[int]
    BOOL_VALUE_FIELD_NUMBER: _ClassVar[int]
    QOS_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    alias: str
    property: str
    string_value: str
    number_value: float
    bool_value: bool
    qos: int
    force: bool
    done: bool
    def __init__(self, alias: _Optional[str] = ..., property: _Optional[str] = ..., string_value: _Optional[str] = ..., number_value: _Optional[float] = ..., bool_value: _Optional[bool] = ..., qos: _Optional[int] = ..., force: _Optional[bool] = ..., done: _Optional[bool] = ...) -> None: ...

class ClientExit(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class ServerExit(_message.Message):
    __slots__ = ("reason", "reconnect_after_ms")
    REASON_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    reason: str
    reconnect_after_ms: int
    def __init__(self, reason: _Optional[str] = ..., reconnect_after_ms: _Optional[int] = ...) -> None: ...

class FetchArtifactRequest(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class FetchArtifactResponse(_message.Message):
    __slots__ = ("chunk",)
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    chunk: bytes
    def __init__(self, chunk: _Optional[bytes] = ...) -> None: ...
