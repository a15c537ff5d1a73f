;; Wants a function that is not part of the host ABI.
;; refused with: imports env::exit
(module
  (import "env" "exit" (func (param i32)))
  (memory (export "memory") 1)
  (func (export "__guest_call") (param i32 i32) (result i32) (i32.const 1)))
