;; Fails without a word.
;; ends in: operation failed with exit code `42`
(module
  (memory (export "memory") 1)
  (func (export "__guest_call") (param i32 i32) (result i32) (i32.const 42)))
