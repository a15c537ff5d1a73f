;; Asks for its request twice.
;; ends in: __guest_request: the request was taken already
(module
  (import "wasmbus" "__guest_request" (func $request (param i32 i32)))
  (memory (export "memory") 1)
  (func (export "__guest_call") (param i32 i32) (result i32)
    (call $request (i32.const 0) (i32.const 1024))
    (call $request (i32.const 0) (i32.const 1024))
    (i32.const 1)))
