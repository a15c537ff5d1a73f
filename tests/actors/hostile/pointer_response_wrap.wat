;; Answers with a pointer and a length whose sum wraps around.
;; ends in: __guest_response: the response at 4294967295
(module
  (import "wasmbus" "__guest_response" (func $respond (param i32 i32)))
  (memory (export "memory") 1)
  (func (export "__guest_call") (param i32 i32) (result i32)
    (call $respond (i32.const -1) (i32.const 2))
    (i32.const 1)))
