;; Has the host write an answer beyond its memory.
;; ends in: __host_response: the answer at 4294967292
(module
  (import "wasmbus" "__host_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasmbus" "__host_response" (func $answer (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "wasmcloud:builtin:numbergen")
  (data (i32.const 64) "NumberGen.GenerateGuid")
  (func (export "__guest_call") (param i32 i32) (result i32)
    (drop (call $call
      (i32.const 0) (i32.const 0) (i32.const 16) (i32.const 27) (i32.const 64) (i32.const 22) (i32.const 0) (i32.const 0)))
    (call $answer (i32.const -4))
    (i32.const 1)))
