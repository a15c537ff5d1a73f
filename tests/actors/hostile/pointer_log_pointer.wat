;; Logs from beyond its memory.
;; ends in: __console_log: the text at 65000
(module
  (import "wasmbus" "__console_log" (func $log (param i32 i32)))
  (memory (export "memory") 1)
  (func (export "__guest_call") (param i32 i32) (result i32)
    (call $log (i32.const 65000) (i32.const 1000))
    (i32.const 1)))
