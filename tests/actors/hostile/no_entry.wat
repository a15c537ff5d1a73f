;; Has nothing to call.
;; refused with: __guest_call
(module
  (memory (export "memory") 1))
