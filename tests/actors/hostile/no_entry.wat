;; Has nothing to call.
;; refused with: exports neither __guest_call nor _start
(module
  (memory (export "memory") 1))
