;; Calls out with a link name beyond its memory.
;; ends in: __host_call: the binding at 4294967295
(module
  (import "wasmbus" "__host_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "__guest_call") (param i32 i32) (result i32)
    (drop (call $call
      (i32.const -1) (i32.const 4) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0)))
    (i32.const 1)))
