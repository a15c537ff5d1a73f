;; Has no memory that the host could read or write.
;; refused with: exports no memory named `memory`
(module
  (func (export "__guest_call") (param i32 i32) (result i32) (i32.const 1)))
