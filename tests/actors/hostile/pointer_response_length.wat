;; Answers with more bytes than it has.
;; ends in: __guest_response: the response at 1, 65536 bytes long, is outside the memory of 65536 bytes
(module
  (import "wasmbus" "__guest_response" (func $respond (param i32 i32)))
  (memory (export "memory") 1)
  (func (export "__guest_call") (param i32 i32) (result i32)
    (call $respond (i32.const 1) (i32.const 65536))
    (i32.const 1)))
