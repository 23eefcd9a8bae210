;; authorizer, ends: rule_error
(data (i32.const 1024) "no-such-group")
;; body
(i32.store8 (i32.const 16) (i32.const 1))
(i32.store (i32.const 20) (i32.const 1024)) (i32.store (i32.const 24) (i32.const 7))
(i32.store (i32.const 28) (i32.const 1024)) (i32.store (i32.const 32) (i32.const 13))
(i32.const 16)
