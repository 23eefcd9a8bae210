;; role-mapper, ends: output
(data (i32.const 1024) "\10\04\00\00\02\00\00\00\10\04\00\00\02\00\00\00ab")
;; body
(call $list (i32.const 1024) (i32.const 2))
