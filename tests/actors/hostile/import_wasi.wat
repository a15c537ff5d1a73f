;; Wants to write files.
;; refused with: imports wasi_snapshot_preview1::path_open; set WASMCLOUD_ALLOW_WASI=deny-all
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "__guest_call") (param i32 i32) (result i32) (i32.const 1)))
