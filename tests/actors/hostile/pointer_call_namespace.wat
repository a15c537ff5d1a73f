;; Calls out with a contract beyond its memory.
;; ends in: __host_call: the namespace at 65530
(module
  (import "wasmbus" "__host_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "__guest_call") (param i32 i32) (result i32)
    (drop (call $call
      (i32.const 0) (i32.const 0) (i32.const 65530) (i32.const 100) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0)))
    (i32.const 1)))
