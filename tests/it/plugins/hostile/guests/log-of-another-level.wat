;; authorizer, ends: output
;; body
(call $log (i32.const 77) (i32.const 65536) (i32.const 1)) (call $allow)
