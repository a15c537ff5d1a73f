;; Exports its entry under a signature it must not have.
;; refused with: exports __guest_call with another type
(module
  (memory (export "memory") 1)
  (func (export "__guest_call") (param i64) (result f64) (f64.const 1)))
