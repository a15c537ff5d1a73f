;; Hands `__guest_request` a place for the payload whose end is beyond its memory.
;; ends in: __guest_request: the payload at 65535
(module
  (import "wasmbus" "__guest_request" (func $request (param i32 i32)))
  (memory (export "memory") 1)
  (func (export "__guest_call") (param i32 i32) (result i32)
    (call $request (i32.const 0) (i32.const 65535))
    (i32.const 1)))
