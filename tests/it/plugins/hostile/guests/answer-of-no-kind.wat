;; authorizer, ends: output
;; body
(i32.store8 (i32.const 16) (i32.const 0)) (i32.store8 (i32.const 20) (i32.const 7)) (i32.const 16)
