;; role-mapper, ends: output
(data (i32.const 1024) "\08\04\00\00\06\00\00\00Owner!")
;; body
(call $list (i32.const 1024) (i32.const 1))
