;; authorizer, ends: output
(data (i32.const 1024) "fine \ff\fe not")
;; body
(call $deny (i32.const 1024) (i32.const 11))
