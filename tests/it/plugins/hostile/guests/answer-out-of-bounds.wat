;; authorizer, ends: output
;; body
(call $deny (i32.const 0x7fffffff) (i32.const 10))
