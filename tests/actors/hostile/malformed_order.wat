;; Its sections come in an order that is not allowed.
;; refused with: not a valid WebAssembly module
(module binary
  "\00asm\01\00\00\00"
  "\03\02\01\00"
  "\01\07\01\60\02\7f\7f\01\7f"            ;; one type: (i32, i32) -> i32
  "\05\03\01\00\01"                        ;; one memory of one page
  "\07\19\02\0c__guest_call\00\00\06memory\02\00"
  "\0a\06\01\04\00\41\01\0b")
