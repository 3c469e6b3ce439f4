"""WebAssembly on wasmtime: a module per script, compiled once; a fresh instance for each run.

`engine` is what a worker talks to. `module` judges and compiles, `imports` and `wasi` are what a
guest may call, `run` is what one run did, `native` is the one place that touches wasmtime.
"""
