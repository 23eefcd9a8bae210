;; authorizer, ends: stack
(func $deeper (param i32) (result i32) (i32.add (i32.const 1) (call $deeper (local.get 0))))
;; body
(call $deeper (i32.const 0))
